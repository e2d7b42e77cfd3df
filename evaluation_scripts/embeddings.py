"""Radiographs and sentences -> what a CXR-CLIP checkpoint makes of them, as arrays that lie in files.

    encoder = Encoder(model, processor, Path("outputs/eval/embeddings"))
    arrays = encoder.images(rows)                # {"pooled": (images, width), "vectors": ..., "pixels": (images, 256)}
    encoder.texts(["no pneumothorax."])          # (1, projection_dim), of length 1

In: rows, of which one picture after the other is read; or texts. Out: float32 arrays that are mapped from their files
and not in memory. A file's folder is named by digests of the weights and of the rows or texts, so the same command
finds it again, and another checkpoint or other data do not. A pass that was interrupted goes on where it stopped.
"""

import copy
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from litegpt.common.files import write_text
from litegpt.common.programs import Refusal
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.modeling_towers.image_towers import measure_batch_norms
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor

GREY_SIDE = 16
CALIBRATION_IMAGES = 384
SEED = 0  # of the random weights
BATCHES_A_NOTE = 20  # batches after which an interrupted pass goes on


class Encoder:
    """A checkpoint, and the folder of what it made of radiographs and texts.

    Args:
        folder: of the arrays, `OUTPUT_DIR/embeddings`.
        batch_size: radiographs or texts at once.
        num_proc: processes that read radiographs; 1: this one.
    """

    def __init__(
        self,
        model: CXRCLIPModel,
        processor: CXRCLIPProcessor,
        folder: Path,
        batch_size: int = 64,
        num_proc: int = 1,
    ):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.processor, self.folder = model.eval().to(self.device), processor, folder
        self.batch_size, self.num_proc = batch_size, num_proc
        self.digest = _digest(model, processor)

    def images(
        self, rows: Dataset, twin: CXRCLIPModel | None = None, of_twin: str = "random"
    ) -> dict[str, np.ndarray]:
        """Arrays of all rows' radiographs.

        Args:
            twin: a second model, such as `untrained_twin`, whose pooled features are made in the same pass.
            of_twin: what its array is called; another name for another twin.

        Returns:
            "pooled": (rows, tower width), the tower's pooled features, which a probe reads; "vectors": (rows,
            projection_dim) of length 1; "pixels": (rows, 256) the radiograph squashed to 16 x 16 grey levels in
            [0, 1]; and `of_twin`.

        Raises:
            RadiographError: a radiograph cannot be used.
            Refusal: the disk has no room.
        """
        width, dimensions = self.model.config.image_width, self.model.config.projection_dim
        widths = {"pooled": width, "vectors": dimensions, "pixels": GREY_SIDE**2}
        if twin is not None:
            widths[of_twin] = width

        def batches(start: int, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
            second = twin() if of_twin in names else None
            for pixel_values, grey in self.pictures(rows, range(start, len(rows))):
                with torch.inference_mode():
                    pixel_values = pixel_values.to(self.device)
                    arrays = {"pixels": grey}
                    if {"pooled", "vectors"} & set(names):
                        pooled = self.model.get_pooled_features(pixel_values)
                        vectors = functional.normalize(self.model.image_projection(pooled).float(), dim=-1)
                        arrays |= {"pooled": pooled, "vectors": vectors}
                    if of_twin in names:
                        arrays[of_twin] = second.get_pooled_features(pixel_values)
                yield {name: arrays[name].float().cpu().numpy() for name in names}

        folder = self.folder / f"images-{_short(self.digest, rows._fingerprint)}"
        return stored(folder, len(rows), widths, batches)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, projection_dim) of length 1."""

        def batches(start: int, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
            for first in range(start, len(texts), self.batch_size):
                inputs = self.processor(text=list(texts[first : first + self.batch_size])).to(self.device)
                with torch.inference_mode():
                    yield {"vectors": self.model(**inputs).text_embeds.cpu().numpy()}

        folder = self.folder / f"texts-{_short(self.digest, *texts)}"
        return stored(folder, len(texts), {"vectors": self.model.config.projection_dim}, batches)["vectors"]

    def pictures(self, rows: Dataset, indices: Sequence[int]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of (pixel values, grey pixels) of some rows."""
        pictures = _Pictures(rows.select_columns("image"), self.processor, indices)
        workers = 0 if self.num_proc == 1 else self.num_proc
        return DataLoader(pictures, self.batch_size, num_workers=workers)

    def untrained_twin(self, rows: Dataset) -> CXRCLIPModel:
        """The same architecture with random weights, the same in every run, and batch norms that fit radiographs.

        They are measured on up to 384 radiographs, evenly spread over `rows`, see `measure_batch_norms`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            twin = CXRCLIPModel(copy.deepcopy(self.model.config)).eval().to(self.device)

        def show() -> None:
            indices = np.linspace(0, len(rows) - 1, min(len(rows), CALIBRATION_IMAGES)).astype(int)
            for pixel_values, _ in self.pictures(rows, indices):
                twin.get_pooled_features(pixel_values.to(self.device))

        measure_batch_norms(twin, show)
        return twin


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, rows: Dataset, processor: CXRCLIPProcessor, indices: Sequence[int]):
        self.rows, self.processor, self.indices = rows, processor, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the given image: ", category=UserWarning)
            picture = self.processor.picture(self.rows[int(self.indices[place])]["image"])
        pixel_values = self.processor.image_processor([picture], return_tensors="pt")["pixel_values"][0]
        return pixel_values, torch.from_numpy(grey_pixels(picture))


def grey_pixels(picture: Image.Image) -> np.ndarray:
    """(256,) float32 in [0, 1]: a radiograph squashed to 16 x 16 means of grey levels."""
    small = picture.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel() / 255


def stored(
    folder: Path,
    count: int,
    widths: Mapping[str, int],
    batches: Callable[[int, Sequence[str]], Iterable[Mapping[str, np.ndarray]]],
) -> dict[str, np.ndarray]:
    """{name: (count, width) float32, mapped} of the files `folder/NAME.npy`; those that are missing are written.

    They are written under a temporary name. `progress.json` says how far an interrupted pass came.

    Args:
        batches: of (first row, names) gives pieces {name: (rows, width)}, from that row to the last one.
    """
    missing = [name for name in widths if not (folder / f"{name}.npy").exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        progress, temporary = folder / "progress.json", {name: folder / f"{name}.npy.incomplete" for name in missing}
        done = 0
        if progress.exists() and all(path.exists() for path in temporary.values()):
            noted = json.loads(progress.read_text(encoding="utf-8"))
            done = noted["done"] if noted["names"] == missing else 0
        if not done:
            _check_free_space(folder, 4 * count * sum(widths[name] for name in missing))
        arrays = {
            name: np.lib.format.open_memmap(path, "r+")
            if done
            else np.lib.format.open_memmap(path, "w+", np.float32, (count, widths[name]))
            for name, path in temporary.items()
        }
        with tqdm(total=count, initial=done, desc=f"Embeddings [{' '.join(missing)}]", mininterval=1) as bar:
            for number, values in enumerate(batches(done, missing), 1):
                size = len(values[missing[0]])
                for name, array in arrays.items():
                    array[done : done + size] = values[name]
                done += size
                bar.update(size)
                if number % BATCHES_A_NOTE == 0:
                    for array in arrays.values():
                        array.flush()
                    write_text(progress, json.dumps({"names": missing, "done": done}))
        for name, path in temporary.items():
            arrays[name].flush()
            os.replace(path, folder / f"{name}.npy")
        progress.unlink(missing_ok=True)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in widths}


def _check_free_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:  # a mapped file kills the process on a full disk
        raise Refusal(f"{folder}: {size / 1e9:.1f} GB are needed for embeddings, {free / 1e9:.1f} GB are free.")


def _digest(model: CXRCLIPModel, processor: CXRCLIPProcessor) -> str:
    """SHA-256 of all that the arrays depend on but the data."""
    poolings = [model.config.image_pooling, model.config.text_pooling, str(model.dtype)]
    reading = [processor.max_length, processor.windowing, processor.image_processor.to_dict()]
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    digest = hashlib.sha256(json.dumps([poolings, reading, vocabulary], sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
