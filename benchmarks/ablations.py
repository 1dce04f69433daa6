"""What each choice of the training recipe is worth, at one equal budget of optimiser steps.

    python benchmarks/ablations.py --data data/packed --source ../shared/data --base llamo-mini --steps 400
    python benchmarks/ablations.py ... --only sampling        # one group; results so far are kept in --out

Groups: `stages` (stage 1 only, 1 + 2, 1 + 2 + 3), `mixture` (Mixture-of-Transformers against one transformer trained
whole, and what that costs in language), `variance` (sigma-VAE against the variance that the network predicts), and
`sampling` (guidance 1, 2, 4; 50, 20, 10 Euler steps; needs no training).

Every model of a group gets the same number of optimiser steps on the same data with the same seed; `stages`, `mixture`
and `variance` begin from the text branch of --base. The budget is far below that of a model one would ship, so the
figures compare choices and say nothing about what the method reaches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamo_ros.core.errors import LlamoError, ParameterError
from llamo_ros.evaluation.prompt_scores import score_model
from llamo_ros.evaluation.text_loss import text_loss
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint, read_config
from llamo_ros.pipelines.text_to_motion import TextToMotion
from llamo_ros.training.motion_beginning import MotionBeginning
from llamo_ros.training.motion_stages import train_motion, without_mixture
from llamo_ros.training.runs import StageSettings, is_finished, record_of
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.stage_config import motion_stage
from llamo_ros.training.stages import export, train_vae
from llamo_ros.training.text_task import text_only_captions

GROUPS = ("stages", "mixture", "variance", "sampling")
# Share of the budget that each stage gets, as in the recipe of the paper (100k, 200k, 50k steps), rounded.
SPLITS: dict[str, dict[int, float]] = {
    "stage 1": {1: 1.0},
    "stages 1 + 2": {1: 0.25, 2: 0.75},
    "stages 1 + 2 + 3": {1: 0.25, 2: 0.6, 3: 0.15},
}
VAES = {"sigma-VAE": "std", "predicted variance": "predicted"}


class Ablations:
    """Trains and measures the variants; what is finished is not done again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.preset = read_config(checkpoint_folder(options.base))[0].name
        self.texts = [text for group in text_only_captions(options.source, "val") for text in group]
        self.file = options.out / "results.json"
        self.results: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        budget = {
            "base": str(options.base),
            "steps": options.steps,
            "vae_steps": options.vae_steps,
            "seed": options.seed,
        }
        if self.results.setdefault("budget", budget) != budget:
            raise ParameterError(f"{options.out} holds results of another budget, {self.results['budget']}.")

    def run(self, group: str) -> None:
        """Everything of one group."""
        if group == "stages":
            for name, split in SPLITS.items():
                self._once(group, name, lambda name=name, split=split: self._trained(name, split))
        elif group == "mixture":
            full = SPLITS["stages 1 + 2 + 3"]
            # The model with the mixture is that of the group `stages`, trained here if it is not there yet.
            self._once(group, "base, before", lambda: {"text_nll": self._text_loss(self.options.base)})
            self._once(group, "mixture", lambda: self._trained("stages 1 + 2 + 3", full))
            self._once(group, "one transformer", lambda: self._trained("one transformer", full, with_mixture=False))
        elif group == "variance":
            for name, variance in VAES.items():
                self._once(group, name, lambda name=name, variance=variance: self._of_vae(name, variance))
        else:
            for guidance in (1.0, 2.0, 4.0):
                self._once(group, f"guidance {guidance:g}", lambda g=guidance: self._sampled(guidance_scale=g))
            for steps in (50, 20, 10):
                self._once(group, f"{steps} Euler steps", lambda s=steps: self._sampled(flow_steps=s))

    def _once(self, group: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        done = self.results.setdefault(group, {})
        if name not in done:
            print(f"== {group}: {name}", flush=True)
            done[name] = measure()
            self.file.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        print(f"{group} | {name} | " + "  ".join(f"{key} {_short(value)}" for key, value in done[name].items()))

    def _settings(self, out: Path, steps: int, values: dict[str, Any], batch_size: int) -> StageSettings:
        values = dict(values) | {"steps": steps, "validate_minutes": 1e9}
        training = TrainingSettings(seed=self.options.seed, threads=self.options.threads, bf16=False, **values)
        return StageSettings(self.options.data, out, training, self.preset, batch_size)

    def _trained(
        self, name: str, split: dict[int, float], with_mixture: bool = True, vae_run: Path | None = None
    ) -> dict[str, Any]:
        """Train a model in these shares of the budget and measure it."""
        folder = self.options.out / name.replace(" ", "_").replace("+", "and")
        begin = MotionBeginning(base=self.options.base, vae_run=vae_run, with_mixture=with_mixture)
        run = folder
        for number, share in split.items():
            stage = motion_stage(number, self.preset)
            stage = stage if with_mixture else without_mixture(stage)
            run = folder / f"motion{number}"
            steps = max(1, round(share * self.options.steps))
            values = dict(stage.training) | {"warmup_steps": min(50, steps // 4)}
            if not is_finished(run):
                train_motion(self._settings(run, steps, values, stage.batch_size), stage, begin)
            begin = MotionBeginning(start=str(run), with_mixture=with_mixture)
        checkpoint = export(run, folder / "checkpoint", name)
        return self._measured(str(checkpoint)) | _flows(record_of(run)["validation"])

    def _of_vae(self, name: str, variance: str) -> dict[str, Any]:
        """Train a VAE with this variance and a model on it."""
        from llamo_ros.training.vae_recipe import vae_recipe

        run = self.options.out / f"vae_{variance}"
        config = replace(read_config(checkpoint_folder(self.options.base))[0].vae, variance=variance)
        if not is_finished(run):
            recipe = vae_recipe("ours")
            settings = self._settings(run, self.options.vae_steps, {}, recipe.batch_size)
            train_vae(settings, vae_config=config)
        figures = record_of(run)["validation"]
        kept = {f"vae {key}": figures[key] for key in ("cmu_mpjpe_mm", "bandai_mpjpe_mm")}
        return kept | self._trained(name, SPLITS["stages 1 + 2 + 3"], vae_run=run)

    def _measured(self, checkpoint: str) -> dict[str, Any]:
        return {"text_nll": self._text_loss(checkpoint)} | self._prompts(checkpoint)

    def _sampled(self, **sampling: float) -> dict[str, Any]:
        return self._prompts(self.options.base, **sampling)

    def _prompts(self, checkpoint: str, **sampling: float) -> dict[str, Any]:
        pipeline = TextToMotion.from_checkpoint(checkpoint, threads=self.options.threads)
        scores = score_model(
            lambda prompt, seed: pipeline(prompt, max_duration=4.0, seed=seed, **sampling),
            lambda seed: pipeline.unconditional(seed=seed, max_duration=4.0),
            range(self.options.seeds),
        )
        jerk = [score.means["jerk"] for score in scores]
        return {
            "prompts": f"{sum(s.passed for s in scores)}/{sum(s.count for s in scores)}",
            "jerk": sum(jerk) / len(jerk),
        }

    def _text_loss(self, checkpoint: str) -> float:
        return text_loss(*load_checkpoint(checkpoint), self.texts)


def _flows(validation: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in validation.items() if key.endswith(("_flow", "_nll"))}


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the groups asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/packed"), help="pack (default: %(default)s)")
    parser.add_argument("--source", type=Path, required=True, help="source data, for its held-out texts")
    parser.add_argument("--base", default="llamo-mini", help="model whose text branch and VAE are used")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each model (default: %(default)s)")
    parser.add_argument(
        "--vae-steps", type=int, default=1500, help="optimiser steps of each VAE (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="motions for each prompt (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="groups to run (default: all)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        ablations = Ablations(options)
        for group in options.only:
            ablations.run(group)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
