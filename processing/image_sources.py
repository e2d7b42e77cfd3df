"""Radiographs as people hand them to a processor -> what `load_radiograph` takes, one after another.

list(flat_images(["a.dicom", ["b.png", array]]))   # ["a.dicom", "b.png", array]
as_source("https://example.org/a.dicom")           # {"bytes": b"...", "path": "https://example.org/a.dicom"}
"""

from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from transformers.utils import is_torch_tensor

from .dicom import MAX_BYTES
from .doubts import unusable
from .radiograph import holds_images

_TIMEOUT = 60  # seconds without a byte from the server of a radiograph


def flat_images(images: Any) -> Iterator[Any]:
    """The radiographs of a nest of lists, generators, columns of data sets, batches of arrays, ..."""
    if holds_images(images):
        for image in images:
            yield from flat_images(image)
    else:
        yield images


def as_source(source: Any) -> Any:
    """What `load_radiograph` takes, of a radiograph that may also be at a URL (http, https) or a torch tensor.

    Raises:
        RadiographError: it cannot be downloaded.
    """
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        return {"bytes": _download(source), "path": source}
    if is_torch_tensor(source):
        source = source.detach().cpu()
        return (source.float() if source.is_floating_point() else source).numpy()
    return source


def _download(url: str) -> bytes:
    """The file at a URL: the library's `load_image` would take pictures alone, and clip those of 16 bits."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "LiteGPT"}), timeout=_TIMEOUT) as response:
            return response.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        reason = f"its server answers {error.code}" if isinstance(error, HTTPError) else type(error).__name__
        raise unusable(url, f"it cannot be downloaded ({reason})") from None
