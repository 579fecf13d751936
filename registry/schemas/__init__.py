"""Answer schemas: how they are applied, and how two of them compare. Which are allowed: registry.policies."""
