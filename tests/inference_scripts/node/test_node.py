"""The node as a program: it comes back after a kill, ends when told to, and says what is wrong with its options."""

import json
import socket
from pathlib import Path

import pytest
import yaml

from litegpt.benchmarks.node_stand_ins import NodeProcess, Sender, until
from litegpt.command import main
from litegpt.common.arguments import parse
from litegpt.inference_scripts.answerers import LocalAnswerer
from litegpt.inference_scripts.arguments import NodeArguments
from litegpt.inference_scripts.node import node
from litegpt.inference_scripts.node.spool import Spool
from tests.small_pacs import as_file, dicom_pacs, radiograph

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENT = ROOT / "inference_scripts" / "node" / "deployment"
OPTIONS = ["--model_name_or_path", "m", "--spool", "s", "--calling_ae_titles", "PACS"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "results have nowhere to go: give --pacs, or --dicomweb_url"),
        (["--pacs", "pacs.example:104"], "--pacs is AE_TITLE@HOST:PORT, not pacs.example:104"),
        (["--pacs", "P@h:1", "--ae_title", "A TITLE THAT IS TOO LONG"], "'A TITLE THAT IS TOO LONG' is no AE title"),
        (["--pacs", "P@h:1", "--sweep_seconds", "60"], "--sweep_seconds needs --dicomweb_url"),
        (["--dicomweb_url", "pacs"], "--dicomweb_url is a URL, not pacs"),
        (["--pacs", "P@h:1", "--source", "view_findings"], "--source view_findings needs --views"),
        (["--pacs", "P@h:1", "--base_url", "http://x", "--candidates"], "are not to be had from a server"),
        (["--pacs", "P@h:1", "--tls_certificate", "nowhere.pem"], "no such file or folder: nowhere.pem"),
        (["--pacs", "P@h:1", "--kinds", "SEG"], "invalid choice: 'SEG'"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_status(options, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["node", *OPTIONS, *options])
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and sentence in said and "\n" not in said


def test_a_spool_or_a_port_that_is_taken_is_one_sentence(arguments, tmp_path):
    with Spool(tmp_path / "spool"), pytest.raises(SystemExit) as stop:
        node.main(arguments())
    assert "is held by another node" in str(stop.value.code)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as stop:
        node.main(arguments(port=taken.getsockname()[1]))
    assert "in use" in str(stop.value.code)


def test_a_checkpoint_that_is_not_there_ends_the_node_with_a_sentence(arguments, tmp_path):
    with pytest.raises(SystemExit) as stop:
        node.main(arguments(model_name_or_path=str(tmp_path / "nothing")))
    assert "nothing" in str(stop.value.code)
    with Spool(tmp_path / "spool"):  # it was given back
        pass


def test_it_answers_with_a_checkpoint_as_it_was_asked_to(arguments, tiny_checkpoint, one_thread):
    answerer = node.load_answerer(arguments(model_name_or_path=str(tiny_checkpoint), views=1, constrained=True))
    assert isinstance(answerer, LocalAnswerer) and answerer.facts["views"] == 1
    with pytest.raises(ValueError, match="has no detector"):
        node.load_answerer(arguments(model_name_or_path=str(tiny_checkpoint), source="fused_findings"))


def test_after_kills_each_radiograph_has_its_results_once_and_the_spool_is_empty(tmp_path, below):
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(as_file(radiograph(number)))
    with dicom_pacs() as pacs:
        process = NodeProcess(tmp_path / "node", {"pacs": pacs.address, "reserve_megabytes": 0}, seconds=0.05)
        with process:
            Sender(process.address, files[:6]).run(30)
            until(lambda: len(pacs.stored) >= 2, 30, "nothing was delivered", process)
            process.kill()
            process.start()
            Sender(process.address, files).run(30)  # six come again
            until(lambda: len(pacs.stored) == 24, 60, "not all were delivered", process)
            until(lambda: process.count("undelivered_radiographs") == 0, 20, "the queue is not empty", process)
            health = json.loads(process.page("health"))
            status = process.stop()
        assert status == 0 and process.events()[-1]["event"] == "ended"
        assert health["status"] == "ok" and health["queue"] == {"unanswered": 0, "undelivered": 0, "failed": 0}
        assert len(below(process.spool)) == 12 and all(name.startswith("done/") for name in below(process.spool))
        assert "SECRET" not in process.log.read_text()


def test_the_example_of_a_configuration_is_one(tmp_path):
    text = (DEPLOYMENT / "node.yaml").read_text()
    values = yaml.safe_load(text)
    for name in ("tls_certificate", "tls_key", "tls_ca", "dicomweb_token_file", "dicomweb_password_file"):
        if name in values:
            values[name] = str(tmp_path / name)
            (tmp_path / name).touch()
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(values))
    (args,) = parse([NodeArguments], ["--config", str(tmp_path / "node.yaml")], "litegpt node", "")
    assert args.pacs_address()[2] > 0
    assert set(NodeArguments.__dataclass_fields__) >= set(values)


def test_unit_and_container_start_the_node_with_a_configuration():
    for name in ("litegpt-node.service", "Containerfile"):
        text = (DEPLOYMENT / name).read_text().replace('", "', " ")
        assert "litegpt node --config /etc/litegpt/node.yaml" in text
