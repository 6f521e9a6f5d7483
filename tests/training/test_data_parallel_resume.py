"""Three ranks that share each batch and resume from a checkpoint end with the bits of three that were never disturbed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.parametrize(
    "model",
    [
        {"name": "mlp", "widths": (300, 100)},
        {"name": "cnn", "widths": (6, 8), "batch_norm": True, "dropout": 0.2, "fully_connected": (16,)},
    ],
    ids=["mlp", "cnn"],
)
def test_three_ranks_resume_to_the_bit(model: dict[str, object], tmp_path: Path) -> None:
    """Weights, and the losses and errors of every epoch, also of the one that was broken off."""
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        import numpy as np
        from accelerate import debug_launcher
        from tests.training.helpers import experiment, specs
        from ensemble.config.schema import DataConfig
        from ensemble.data import load_dataset
        from ensemble.training import Trainer, stack_run
        from ensemble.training.checkpoint import capture, restore
        from ensemble.training.placement import Placement
        from ensemble.types import Task

        digits = load_dataset(DataConfig(name="digits"))
        arrays = {{
            "train_images": digits.train_images_NCHW[:300], "train_labels": digits.train_labels_N[:300],
            "validation_rows": np.arange(270, 300), "test_images": digits.test_images_NCHW[:20],
            "mean": np.float32([0.3]), "std": np.float32([0.35]),
        }}
        stack_run._SHARED_EVERY = 4

        def start():
            config = experiment({model!r}, kernels="torch", batch_size=32, epochs=3)
            recipe = config.groups[0].name
            job = Trainer.create(config, "cpu", 10).jobs[recipe]
            placement = Placement.create(job.compute, data_parallel=True)
            assert placement.ranks == 3
            task = Task("t", recipe, specs([0, 1], recipe=recipe, rows=260))
            return stack_run.StackRun(task, job, arrays, placement)

        def finish(run):
            for epoch in range(run.state.epoch, 3):
                list(run.train_epoch(epoch))
            found = {{f"{{k}}.{{name}}": t.numpy().copy() for k in (0, 1) for name, t in run.stack.member_state(k).items()}}
            found["losses"] = np.array([
                (r.train_loss, r.train_error, r.validation_loss) for history in run.state.histories for r in history
            ])
            return found

        def work():
            whole = start()
            list(whole.train_epoch(0))
            real, kept = whole._take_step, []
            def kept_at_four(largest):  # before the step, as the first rank would have done after the last one
                if whole.state.step == 4:
                    kept.append(capture(whole.state))
                real(largest)
            whole._take_step = kept_at_four
            list(whole.train_epoch(1))
            whole._take_step = real
            undisturbed = finish_from(whole, 2)
            # Every rank is given what the first one wrote, as the launcher does.
            import torch.distributed as dist
            content = [kept[0]]
            dist.broadcast_object_list(content, 0)
            again = start()
            restore(again.state, content[0], "t", 3)
            resumed = finish(again)
            rank = dist.get_rank()
            np.savez(f"{tmp_path}/whole{{rank}}.npz", **undisturbed)
            np.savez(f"{tmp_path}/again{{rank}}.npz", **resumed)

        def finish_from(run, first):
            run.state.epoch = first - 1
            for epoch in range(first, 3):
                list(run.train_epoch(epoch))
            run.state.epoch = 3
            return finish(run)

        if __name__ == "__main__":
            debug_launcher(work, num_processes=3)
    """)
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=280)
    for rank in range(3):
        whole, again = (np.load(tmp_path / f"{name}{rank}.npz") for name in ("whole", "again"))
        assert len(whole["losses"]) == 6
        for name in whole.files:
            np.testing.assert_array_equal(again[name], whole[name], err_msg=f"rank {rank}: {name}")
