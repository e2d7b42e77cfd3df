from pathlib import Path

from setuptools import find_namespace_packages, setup

# Each is imported as litegpt.FOLDER; benchmarks and tests are not installed.
FOLDERS = [
    "common",
    "datasets_scripts",
    "dicom_output",
    "evaluation_scripts",
    "hub",
    "inference_scripts",
    "metrics",
    "modeling_litegpt",
    "modeling_towers",
    "processing",
    "train_scripts",
]
PACKAGES = find_namespace_packages(include=FOLDERS + [f"{folder}.*" for folder in FOLDERS])

setup(
    name="litegpt",
    version="0.1.0",
    description="Vision-language model for chest radiographs: names findings, draws their boxes, states diagnoses",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The LiteGPT developers",
    url="https://arxiv.org/abs/2407.12064",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    python_requires=">=3.10",
    packages=["litegpt", *(f"litegpt.{package}" for package in PACKAGES)],
    package_dir={"litegpt": "litegpt"} | {f"litegpt.{folder}": folder for folder in FOLDERS},
    package_data={
        "litegpt.common": ["*.jinja"],
        "litegpt.modeling_litegpt": ["configs/*.json", "*.jinja"],
        "litegpt.modeling_towers": ["*.jinja"],
        "litegpt.metrics": ["**/*.md", "**/*.txt"],
        "litegpt.evaluation_scripts": ["**/*.jinja", "reports/*.css"],
        "litegpt.datasets_scripts": ["**/*.jinja"],
        "litegpt.hub": ["**/*.jinja"],
        "litegpt.inference_scripts.app": ["*.html", "*.css", "*.js"],
        "litegpt.inference_scripts.hospital": ["*.js"],
        "litegpt.inference_scripts.node": ["deployment/*"],
        "litegpt.train_scripts": ["**/*.yaml"],
    },
    entry_points={"console_scripts": ["litegpt = litegpt.command:main"]},
    # The tests run on what requirements/main.txt pins, on every minor release of transformers from 5.17 on
    # (`make test-versions`), and on the newest releases that these ranges allow (`make test-newest`). An upper bound
    # stands where ours are subclasses or rely on internals: there a new major version means work.
    install_requires=[
        "torch>=2.11",
        "transformers>=5.17,<6",
        "tokenizers>=0.22",
        "safetensors>=0.6",
        "huggingface_hub>=1.0",
        "datasets>=5.2",
        "filelock",  # any that datasets takes, as of the next
        "fsspec",
        "accelerate>=1.15",
        "peft>=0.21",
        "trl>=1.14,<2",  # 1.14 is the last for Python 3.10
        "bitsandbytes>=0.50",
        "evaluate>=0.4.6",
        "rouge_score>=0.1.2",  # these four: what the text metrics compute with
        "sacrebleu>=2.6",
        "nltk>=3.10",
        "pycocoevalcap>=1.2",
        "jinja2>=3.1",  # reports and cards
        "markupsafe",  # any that jinja2 takes
        "matplotlib>=3.10",  # the plots of evaluation reports
        "tensorboard>=2.20",  # the trainer's default report
        "pydicom>=3.0.2,<4",
        "imagecodecs>=2025.3.30",
        "pylibjpeg>=2.0",
        "pylibjpeg-openjpeg>=2.5",
        "pylibjpeg-rle>=2.1",
        "pyjpegls>=1.5",
        "pillow>=12.0",
        "numpy>=2.1",
        "scikit-learn>=1.7",
        "scipy",  # any that scikit-learn takes
    ],
    extras_require={
        "wbf": ["ensemble-boxes>=1.0.9"],  # merging readers by weighted box fusion; needs numba
        # Equalised contrast (CLAHE), one of CXR-CLIP's augmentations.
        "clahe": ["opencv-python-headless>=4.11"],
        # BiomedCLIP's own code: the conversion of its weights is checked against it and needs none of it.
        "convert": ["open_clip_torch>=3.3", "timm>=1.0.20", "torchvision>=0.26"],
        # Decodes JPEG for the paper's code, which benchmarks/ compares with. GPL: nothing of ours imports it.
        "bench": ["pylibjpeg-libjpeg>=2.3"],
        "conformance": ["parameterized>=0.9"],  # of transformers' own tests
        # Answers as DICOM objects, and `litegpt node`; with that, dicomweb-client reads and stores over HTTP.
        "dicom": ["highdicom>=0.28.2,<0.29", "pynetdicom>=3.0.4", "dicomweb-client>=0.61"],
        "ray": ["ray>=2.50"],  # only its core: shards on many machines
        "app": ["gradio>=6.31,<7"],  # `litegpt app`; it holds Pillow below 13, so `dev` is without it
        # gguf: the format of the real weights that tests/real_tokenizers read.
        "dev": [
            "pytest>=9.0",
            "ruff>=0.14",
            "ensemble-boxes>=1.0.9",
            "xgrammar>=0.2.8",
            "gguf>=0.17",
            "opencv-python-headless>=4.11",
            "litegpt[dicom,ray]",
            "playwright>=1.65",  # drives Debian's Chromium, in tests of pages
        ],
    },
)
