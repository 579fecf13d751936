"""From recipe to published adapter: plan, train, package, evaluate, publish."""
