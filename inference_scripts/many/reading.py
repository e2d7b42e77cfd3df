"""The bytes of a planned radiograph, wherever it lies.

    reader = Reader(dicomweb=None)
    reader.read(Item("a1", "s3://bucket/a1.dcm"))                  # bytes; or RadiographError: this one cannot be used
    reader.read(Item("b7", "rows.parquet", 17))                    # a picture of a column

What is about one radiograph is a RadiographError. What would be about every next one, a store or a PACS that does not
answer, is a StoreError or a Refusal, which end the run: the same command resumes it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litegpt.common.addresses import StoreError, is_remote, open_address, read_bytes
from litegpt.common.programs import Refusal
from litegpt.inference_scripts.dicomweb import WebPlace, WebRadiograph, fetched, trouble, web_client
from litegpt.inference_scripts.inbox import bytes_of
from litegpt.inference_scripts.many.sources import PICTURE, Item
from litegpt.processing.dicom import MAX_BYTES
from litegpt.processing.doubts import RadiographError, unusable

ROWS_AT_ONCE = 16  # of a Parquet file: pictures that are in memory
TRIES = 5
PASSING = (429, 502, 503, 504)  # HTTP statuses after which a PACS is asked again


class Reader:
    """Reads radiographs, best in the order of the plan.

    Args:
        dicomweb: the PACS in which they lie; None where they don't.
    """

    def __init__(self, dicomweb: WebPlace | None):
        self.dicomweb, self._client, self._parquet = dicomweb, None, ParquetPictures()

    def read(self, item: Item) -> bytes:
        """Its bytes.

        Raises:
            RadiographError: it is not there, or too large.
            Refusal, StoreError: whom it lies with does not answer.
        """
        if item.row is not None:
            return self._parquet.picture(item)
        if self.dicomweb is not None and item.address.startswith(self.dicomweb.url.rstrip("/") + "/"):
            return self._fetched(item)
        if not is_remote(item.address):
            return bytes_of(Path(item.address))[1]
        try:
            return read_bytes(item.address, MAX_BYTES)
        except StoreError:  # it would be the same of the next one
            raise
        except OSError as error:
            raise RadiographError(str(error)) from None

    def _fetched(self, item: Item) -> bytes:
        import requests

        if self._client is None:
            self._client = web_client(self.dicomweb)
            self._client.set_http_retry_params(retry=True, max_attempts=TRIES, retriable_error_codes=PASSING)
        try:
            return fetched(self._client, WebRadiograph.of_address(item.address))
        except requests.HTTPError as error:
            code = error.response.status_code
            if code in (401, 403, *PASSING):
                raise Refusal(trouble(self.dicomweb.url, error)) from None
            raise unusable(item.name, f"the PACS answers with HTTP status {code}") from None
        except requests.RequestException as error:
            raise Refusal(trouble(self.dicomweb.url, error)) from None
        except Exception as error:  # what pydicom makes of a damaged one; its message may quote a patient's tags
            raise unusable(item.name, f"what the PACS sends is no DICOM object ({type(error).__name__})") from None


class ParquetPictures:
    """Pictures of Parquet files, a few rows in memory at a time: fast where rows are asked for in their order."""

    def __init__(self):
        self._address, self._next = "", 0
        self._rows: Iterator[tuple[int, Any]] = iter(())

    def picture(self, item: Item) -> bytes:
        """The bytes in the column `image`, as `datasets` writes it or plain.

        Raises:
            RadiographError: the row has none.
            Refusal: the file cannot be read.
        """
        import pyarrow as pa

        try:
            if item.address != self._address or item.row < self._next:
                self._address, self._rows = item.address, _rows_from(item.address, item.row)
            for row, value in self._rows:
                self._next = row + 1
                if row == item.row:
                    picture = value.as_py()
                    data = picture.get("bytes") if isinstance(picture, dict) else picture
                    if isinstance(data, bytes):
                        return data
                    break
        except (OSError, pa.ArrowException) as error:
            raise Refusal(f"{item.address} cannot be read: {str(error).splitlines()[0]}") from None
        raise unusable(item.name, "its row has no picture")


def _rows_from(address: str, row: int) -> Iterator[tuple[int, Any]]:
    """The rows from the row group on that has `row`, each with its number."""
    import pyarrow.parquet as pq

    with open_address(address) as opened:
        file, start = pq.ParquetFile(opened), 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if row < end:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[PICTURE]):
                    yield from enumerate(batch.column(0), start)
                    start += len(batch)
            start = end
