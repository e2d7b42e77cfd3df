"""The page as a Space: what it consists of, that it starts from its own folder alone, and that it reaches the Hub."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.metadata import requires
from pathlib import Path

import pytest
from huggingface_hub import RepoCard

from litegpt.hub.arguments import PushArguments
from litegpt.hub.push_to_hub import main
from litegpt.hub.space import SDK_VERSION, requirements, space_files
from litegpt.inference_scripts.hospital.children import free_port
from tests.hub_stand_in import HubStandIn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def space(tiny_checkpoint, tmp_path_factory) -> Path:
    """The folder as `--space_dir` writes it."""
    folder = tmp_path_factory.mktemp("space") / "page"
    main(PushArguments(str(tiny_checkpoint), "acme/litegpt", space_dir=str(folder)))
    return folder


def test_the_space_says_how_it_is_started_and_which_checkpoint_it_asks(space):
    card = RepoCard((space / "README.md").read_text(encoding="utf-8")).data.to_dict()
    assert (card["sdk"], card["sdk_version"], card["app_file"]) == ("gradio", SDK_VERSION, "app.py")
    assert card["models"] == ["acme/litegpt"] and card["license"] == "apache-2.0"
    assert 'model_name_or_path="acme/litegpt"' in (space / "app.py").read_text(encoding="utf-8")
    assert len(card["short_description"]) <= 60


def test_gradio_is_the_first_that_the_package_allows():
    (line,) = [line for line in requires("litegpt") if line.startswith("gradio")]
    assert re.search(r">=([\d.]+)", line)[1] == SDK_VERSION.removesuffix(".0")


def test_the_spaces_requirements_hold_all_that_the_page_imports(space):
    """Of our own requirements: what those need, pip knows."""
    code = """
import sys
from importlib.metadata import packages_distributions
import litegpt.inference_scripts.app.desk, litegpt.inference_scripts.app.downloads, litegpt.inference_scripts.app.app
import litegpt.dicom_output.result_objects, peft, matplotlib
distributions = packages_distributions()
names = {d.lower() for m in {m.partition(".")[0] for m in sys.modules} for d in distributions.get(m, [])}
print(*names)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {re.split(r"[^\w.-]", line)[0].lower() for line in requires("litegpt") if ";" not in line}
    lines = {re.split(r"[^\w.-]", line)[0].lower() for line in requirements()}
    # Both come with others of ours: jinja2 needs markupsafe, and datasets filelock and fsspec.
    assert set(done.stdout.split()) & ours - lines <= {"markupsafe", "filelock", "fsspec"}
    assert all(">" in line or line == "scipy" for line in requirements())


def test_the_page_starts_from_the_spaces_folder_alone(space, tiny_checkpoint, tmp_path):
    pytest.importorskip("gradio", reason='needs Gradio, of the extra app: pip install ".[app]"')
    port = free_port()
    # Without the Hub the repository's name is a folder, as `from_pretrained` takes it.
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "litegpt").symlink_to(tiny_checkpoint)
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, str(space / "app.py")],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(space), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C ends it" in line:
                break
        else:
            pytest.fail("".join(said))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
            assert b"Research software, not for diagnosis" in answer.read()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_the_spaces_code_is_its_own_and_needs_no_other(space, tmp_path):
    code = "import sys, litegpt.inference_scripts.app.app, litegpt.inference_scripts.app.desk; "
    code += "print(*{m.__file__ for n, m in sys.modules.items() if n.startswith('litegpt') and m.__file__})"
    environment = {**os.environ, "PYTHONPATH": str(space)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    files = done.stdout.split()
    assert len(files) > 20 and all(file.startswith(str(space)) for file in files)


def test_a_space_is_pushed_after_its_checkpoint_and_again_without_what_is_gone(tiny_checkpoint, tmp_path):
    pushes = """
import sys
from litegpt.hub import push_to_hub, space
from litegpt.hub.arguments import PushArguments
arguments = PushArguments(sys.argv[1], "acme/litegpt", space="acme/page")
push_to_hub.main(arguments)
space.push_space({**space.space_files("acme/litegpt"), "litegpt/gone.py": b""}, "acme/page", False)
push_to_hub.main(arguments)
"""
    (tmp_path / "hub").mkdir()
    with HubStandIn(tmp_path / "hub") as hub:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "home")}
        words = [sys.executable, "-c", pushes, str(tiny_checkpoint)]
        subprocess.run(words, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        pushed = set(hub.files("spaces", "acme/page")) - {".gitattributes"}
        assert pushed == set(space_files("acme/litegpt")) and ("models", "acme/litegpt") in hub.repositories
        assert not hub.unknown_requests


def test_only_a_litegpt_has_a_page_and_no_other_folder_is_overwritten(tiny_cxr_clip, tiny_checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="a page is for a LiteGPT"):
        main(PushArguments(str(tiny_cxr_clip), "acme/cxr-clip", space_dir=str(tmp_path / "space")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(SystemExit, match="holds something else than a Space"):
        main(PushArguments(str(tiny_checkpoint), "acme/litegpt", space_dir=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "thesis.txt").exists()
