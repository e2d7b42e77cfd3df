"""A DICOM radiograph that a test can afford."""

import numpy as np
import pydicom


def small_dicom(greys: np.ndarray) -> pydicom.Dataset:
    """A chest radiograph, uncompressed, whose window shows the 8-bit `greys` (rows, columns) as they are."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "DX", "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = greys.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation, dataset.WindowCenter, dataset.WindowWidth = 0, 128, 256
    dataset.PixelData = greys.tobytes()
    return dataset
