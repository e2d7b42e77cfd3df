"""Loads a checkpoint as a stranger would, with transformers' Auto classes alone, and asks it about one radiograph.

    python inference_scripts/load_checkpoint.py outputs/demo/checkpoint radiograph.dicom

It works in a folder of its own and imports nothing of this repository: a checkpoint has to bring its code along.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline


def main(checkpoint: str, radiograph: str) -> None:
    checkpoint, radiograph = str(Path(checkpoint).resolve()), str(Path(radiograph).resolve())
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
        base = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
        print(f"{type(config).__name__}, {type(base).__name__}, {type(model).__name__}, {type(processor).__name__}")

        prompt = processor.prompt("identify")
        inputs = processor(images=radiograph, text=prompt, add_special_tokens=False, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=512, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        print("generate:             ", processor.decode(tokens, skip_special_tokens=True))

        question = f"[vqa] {processor.instructions['vqa']}"
        content = [{"type": "image", "path": radiograph}, {"type": "text", "text": question}]
        chat = pipeline("image-text-to-text", model=checkpoint, trust_remote_code=True)
        message = {"role": "user", "content": content}
        answer = chat(text=[message], return_full_text=False, generate_kwargs={"do_sample": False})
        print("image-text-to-text:   ", answer[0]["generated_text"].strip())

        findings = pipeline("chest-xray-findings", model=checkpoint, trust_remote_code=True)
        print("chest-xray-findings:  ", json.dumps(findings(radiograph)))
        os.chdir("/")
    if "litegpt" in sys.modules:
        sys.exit(f"{checkpoint} needed our package; it has to load with nothing of ours installed.")


if __name__ == "__main__":
    main(*sys.argv[1:])
