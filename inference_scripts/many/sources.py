"""Where many radiographs come from, one after another: files, folders, Parquet, a list, a PACS.

    for item in items_of(Sources(radiographs=["archive", "s3://bucket/rows.parquet"])):
        item    # Item(image_id="a1", address="/data/archive/a1.dcm", row=None)

In: what a person names. Out: an `Item` for each file, each row of a Parquet file and each radiograph of a PACS, in an
order that is the same each time. Nothing is read but names, ids and UIDs, and no list of all is in memory.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from litegpt.common.addresses import absolute, open_address, place
from litegpt.inference_scripts.dicomweb import WebPlace, radiographs, trouble, web_client
from litegpt.inference_scripts.listing import each_file

PICTURE, ID = "image", "image_id"  # columns of a Parquet file


class Item(NamedTuple):
    """A radiograph to be, before it is read.

    Attributes:
        image_id: a file's name without the suffix, what a Parquet row says, or a PACS's SOP Instance UID.
        address: of the file.
        row: in it, of a Parquet file.
    """

    image_id: str
    address: str
    row: int | None = None

    @property
    def name(self) -> str:
        """What messages and results call it: there is one such for each."""
        return self.address if self.row is None else f"{self.address}#{self.row}"


@dataclass(frozen=True)
class Sources:
    """What a person names.

    Attributes:
        radiographs: files and folders, paths or addresses.
        list_file: a text file with one of them a line; None for none.
        dicomweb: a PACS; None for none.
        filters: of QIDO-RS, that its studies pass.
    """

    radiographs: list[str] = field(default_factory=list)
    list_file: str | None = None
    dicomweb: WebPlace | None = None
    filters: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What a plan says of them: no secrets, and no more of the PACS than its URL."""
        named = {"radiographs": [absolute(path) for path in self.radiographs]}
        named["list_file"] = None if self.list_file is None else absolute(self.list_file)
        named["dicomweb"] = None if self.dicomweb is None else asdict(self.dicomweb)["url"]
        return {**named, "filters": dict(self.filters)}


def items_of(sources: Sources) -> Iterator[Item]:
    """Every radiograph to be; those of a file that is named twice come twice.

    Raises:
        OSError: a folder, a list or a Parquet file cannot be read; the PACS does not answer, or refuses.
        ValueError: a Parquet file has no column of pictures.
    """
    yield from _of_files(sources.radiographs)
    if sources.list_file is not None:
        with open_address(sources.list_file) as file:
            for line in io.TextIOWrapper(file, encoding="utf-8"):
                if line.strip():
                    yield from _of_files([line.strip()])
    if sources.dicomweb is not None:
        yield from _of_pacs(sources.dicomweb, sources.filters)


def _of_files(paths: Sequence[str]) -> Iterator[Item]:
    for path, _ in each_file([place(absolute(path)) for path in paths]):
        yield from _of_file(str(path))


def _of_pacs(pacs: WebPlace, filters: dict[str, str]) -> Iterator[Item]:
    import requests

    try:
        for radiograph in radiographs(web_client(pacs), filters):
            yield Item(radiograph.uid, radiograph.address(pacs.url))
    except requests.RequestException as error:
        raise ConnectionError(trouble(pacs.url, error)) from None


def _of_file(address: str) -> Iterator[Item]:
    name = PurePath(address)
    if name.suffix.lower() != ".parquet":
        yield Item(name.stem, address)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_address(address) as opened:
        try:
            file = pq.ParquetFile(opened)
        except pa.ArrowInvalid:
            raise ValueError(f"{address} is no Parquet file, or is damaged.") from None
        columns = file.schema_arrow.names
        if PICTURE not in columns:
            raise ValueError(f"{address} has no column {PICTURE}, but {', '.join(columns)}.")
        if ID not in columns:
            yield from (Item(f"{name.stem}-{row}", address, row) for row in range(file.metadata.num_rows))
            return
        row = 0
        for batch in file.iter_batches(batch_size=1 << 16, columns=[ID]):
            for image_id in batch.column(0).to_pylist():
                yield Item(str(image_id), address, row)
                row += 1
