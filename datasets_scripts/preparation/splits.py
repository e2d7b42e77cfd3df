"""What keeps the splits of a data set apart: a fixed validation share, and the search for images in two splits.

in_validation("patient 22", share=0.1)     # always the same answer
seventy_fifteen_fifteen(["a", "b", ...])   # {"a": "train", "b": "test", ...}: GLoRIA's split of other data sets
pixel_hash(image), perceptual_hash(image)  # of an 8-bit grey picture, as hexadecimal digits
duplicates_across_splits(manifest)         # [("train", "a3", "test", "b7", "identical", 0), ...]
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

HASH_BITS = 512
HASH_SIDE = 64  # pixels of the square that the hash sees
NEAR_DISTANCE = 88  # bits; measured, see `perceptual_hash`
BLOCK = 256  # images of each side that are compared at a time

# The lowest frequencies but for the mean, by their distance from it.
_COLUMN, _ROW = np.meshgrid(np.arange(HASH_SIDE), np.arange(HASH_SIDE))
_FREQUENCIES = np.argsort((_COLUMN**2 + _ROW**2).ravel(), kind="stable")[1 : HASH_BITS + 1]
_COSINES = np.cos(np.pi / HASH_SIDE * (_COLUMN + 0.5) * _ROW)


def in_validation(key: str, share: float) -> bool:
    """Whether what bears this key is held out of train for validation.

    The answer never changes: it hangs on nothing but the key's SHA-256. A larger share keeps what a smaller one held
    out and adds to it.

    Args:
        key: a patient's, so that no patient is on both sides; an image's where patients are unknown.
        share: of all keys, from 0 to 1.

    Raises:
        ValueError: the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The validation share must be from 0 to 1, not {share}.")
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


def seventy_fifteen_fifteen(keys: Sequence[str]) -> dict[str, str]:
    """{key: "train" | "validation" | "test"}, as GLoRIA's code splits RSNA Pneumonia, and CXR-CLIP after it.

    scikit-learn's `train_test_split` with random_state 0, of all keys into 70 and 30 %, then of the 30 % into halves,
    of which the first is test. The keys' order matters: sorted, the answer hangs on nothing but them.
    """
    from sklearn.model_selection import train_test_split  # it takes a second that others need not wait

    if len(keys) < 4:  # too few for three splits
        return dict.fromkeys(keys, "train")
    train, others = train_test_split(list(keys), test_size=0.3, random_state=0)
    test, validation = train_test_split(others, test_size=0.5, random_state=0)
    return {
        key: split
        for split, part in zip(("train", "validation", "test"), (train, validation, test), strict=True)
        for key in part
    }


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of an 8-bit grey image's size and pixels, as 64 hexadecimal digits: equal for equal pictures only."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual_hash(image: Image.Image) -> str:
    """`HASH_BITS` bits as hexadecimal digits, most of them equal for two versions of one radiograph.

    The image is squashed to 64 x 64, each grey value replaced by its rank among all, so that windowing and gamma
    matter little, and transformed (DCT-II); the bits are the signs of the 512 lowest frequencies without the mean.
    A negative flips them all.

    Measured in bits on 835 NIH radiographs of 588 patients (320 x 320; 347,665 pairs of different patients):

        different patients                         median 246, smallest 153
        different radiographs of one patient       median 242, smallest 132 (but for one that stands twice)
        the same radiograph, changed               median, share within 88 bits, within 136
          JPEG quality 60                            8    100 %    100 %
          half or double size                        6    100 %    100 %
          gamma 0.8 or 1.25                          6    100 %    100 %
          contrast +15 % or -15 %                    8     99.8 %  100 %
          window that clips a sixth of the range    22     98.2 %   99.9 %
          negative                                   0    100 %    100 %
          turned by half a degree                   38     99.9 %  100 %
          1 % cut from each side                    54     99.5 %  100 %
          the same, gamma 1.25, JPEG quality 60     55     99.6 %  100 %
          2 % cut from one side                     60     99.2 %  100 %
          2 % cut from each side                   102     17 %     99.4 %

    `NEAR_DISTANCE` is 88 for the sake of phantoms, which are far more alike: of 8 million pairs one is that near, and
    105,091 are within 136. For real radiographs 136 would do.

    Args:
        image: 8-bit grey ("L"), of any size.
    """
    small = np.asarray(image.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0))
    histogram = np.bincount(small.ravel(), minlength=256)
    ranks = (np.cumsum(histogram) - histogram / 2) / small.size - 0.5
    spectrum = _COSINES @ ranks[small] @ _COSINES.T
    # Not above 0: where an image is flat or symmetric, rounding would decide.
    return np.packbits(spectrum.ravel()[_FREQUENCIES] > 1e-6).tobytes().hex()


def duplicates_across_splits(rows: Iterable[Mapping[str, str]]) -> list[tuple[str, str, str, str, str, int]]:
    """Pairs of images that are, or look like, one image in two splits. Pairs within a split do not count.

    All pairs are compared, in blocks: memory stays flat.

    Args:
        rows: of manifest.csv, with `split`, `image_id`, `pixel_hash` and `perceptual_hash`.

    Returns:
        (split_a, image_a, split_b, image_b, kind, distance), the nearest first. `kind` is "identical" where the pixels
        are, else "near". `distance` is the number of bits, at most `NEAR_DISTANCE`, in which the perceptual hashes of
        the one and of the other or its negative differ.
    """
    images: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        images.setdefault(row["split"], []).append(row)
    hashes = {
        split: np.frombuffer(bytes.fromhex("".join(row["perceptual_hash"] for row in images[split])), dtype=np.uint64)
        for split in images
    }
    hashes = {split: words.reshape(len(images[split]), HASH_BITS // 64) for split, words in hashes.items()}
    pairs = []
    for split_a, split_b in combinations(images, 2):
        for index_a, index_b, distance in near_pairs(hashes[split_a], hashes[split_b]):
            a, b = images[split_a][index_a], images[split_b][index_b]
            kind = "identical" if a["pixel_hash"] == b["pixel_hash"] else "near"
            pairs.append((split_a, a["image_id"], split_b, b["image_id"], kind, distance))
    return sorted(pairs, key=lambda pair: (pair[5], pair[4]))


def near_pairs(hashes_a: np.ndarray, hashes_b: np.ndarray) -> list[tuple[int, int, int]]:
    """(index in a, index in b, distance) of hashes, (n, words) and (m, words) uint64, within `NEAR_DISTANCE` bits."""
    pairs = []
    for start_a in range(0, len(hashes_a), BLOCK):
        a = hashes_a[start_a : start_a + BLOCK]
        for start_b in range(0, len(hashes_b), BLOCK):
            b = hashes_b[start_b : start_b + BLOCK]
            distances = np.zeros((len(a), len(b)), dtype=np.uint16)
            for word in range(a.shape[1]):
                distances += np.bitwise_count(a[:, word, None] ^ b[None, :, word])
            distances = np.minimum(distances, HASH_BITS - distances)
            for index_a, index_b in np.argwhere(distances <= NEAR_DISTANCE):
                pairs.append((start_a + int(index_a), start_b + int(index_b), int(distances[index_a, index_b])))
    return pairs
