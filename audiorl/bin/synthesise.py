"""Speaks the test sets with one or more experiments: tokens, then waves (stage 6).

example:
  python -m audiorl.bin.synthesise --config conf/both.yaml --dump dump --codec exp/codec \\
      exp/sft exp/grpo

Voices are the speakers' in the train set; of a system that was unpacked, those that it brought.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, refuse_other_task, run
from audiorl.config import load_config


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dump", type=Path, required=True, help="folder of the formatted sets")
    options.add_argument("--codec", type=Path, required=True, help="experiment of the codec")
    options.add_argument(
        "experiments", nargs="+", type=Path, metavar="EXP", help="with a model/ inside"
    )
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.data.speech_tokens import check_codec
    from audiorl.data.utterance import read_utterances
    from audiorl.infer.synthesise import DONE, is_made, speaker_vectors, synthesise_set
    from audiorl.infer.voices import VOICES, read_voices
    from audiorl.models import WEIGHTS, load_model
    from audiorl.models.codec import codec_info, load_codec
    from audiorl.runtime.device import pick_device, setup_torch

    setup_torch(config.num_threads)
    device = str(pick_device(config.device))
    codec, voices = None, {}
    for experiment in args.experiments:
        refuse_other_task(experiment, "tts")
        folder = experiment / f"decode_{config.decode.name}"
        weights = experiment / "model" / WEIGHTS
        sets = {name: args.dump / name for name in config.data.test}
        wanted = {
            name: data
            for name, data in sets.items()
            if not is_made(config, weights, data, folder / name / DONE)
        }
        if not wanted:
            print(f"{folder} is complete: nothing to do")
            continue
        if codec is None:
            codec = load_codec(args.codec / "model", device)
            texts = [u for data in sets.values() for u in read_utterances(data, texts_alone=True)]
            speakers = {u.speaker for u in texts}
            if (args.codec / VOICES).exists():
                voices = read_voices(args.codec / VOICES, speakers)
            else:
                train = read_utterances(args.dump / config.data.train)
                voices = speaker_vectors(codec, train, speakers)
        model = load_model(experiment / "model", device)
        fix = f"name the codec that {experiment} was trained on"
        check_codec(codec_info(codec), model.facts.codec, str(args.codec), str(experiment), fix)
        for name, data in wanted.items():
            synthesise_set(model, codec, voices, config, data, weights, folder / name)
            print(f"wrote {folder / name}")


if __name__ == "__main__":
    run(main)
