"""Where rows come from: a file, a hub data set or an object store, named by one line of text."""

from trainer.datasets.sources.file import File
from trainer.datasets.sources.hub import HubFile
from trainer.datasets.sources.locate import Source, locate
from trainer.datasets.sources.s3 import S3Object

__all__ = ["File", "HubFile", "S3Object", "Source", "locate"]
