"""The mix-up suite over all its targets: what `make mixup` runs."""
