"""What a user writes about the model and its training. Every default lives here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from fieldwise.features.schema import Strict


class ModelConfig(Strict):
    """Which interaction, and how wide. A setting the model has no use for is refused, see ``training.models``."""

    model_config = ConfigDict(extra="allow")  # the keys of one kind alone, which its own file declares and checks

    kind: str
    """The model, by name, or ``auto``."""
    dim: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Latent dimension k. Default: chosen by the data with ``training.auto``, from 16 for fm and 4 for ffm (per pair of
    fields), which it is without. lr and poly2 have none."""
    pair_buckets: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    """Hashed pair rows of poly2. Default: 2^20. Other models have none."""
    init_scale: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the initial latent weights. Default: the model's own."""


class CheckpointConfig(Strict):
    """When to save what a killed run resumes from."""

    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Wall-clock distance of checkpoints on rank 0; null: none by time."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Distance in steps; null: none by steps."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints kept; older ones are deleted."""


_LATER = {"dense_learning_rate": None, "dense_l2": 0.0, "warm_rate": None, "calibration": None, "auto": False}


class TrainingConfig(Strict):
    """How the model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """At most; early stopping usually ends sooner. Left out, with ``auto`` and patience, it is 100."""
    batch_size: Annotated[int, Field(ge=1)] = 4096
    """Rows of one step over all ranks together; a multiple of ``streams``."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts in which a step's rows pass through the model, their gradients summed: the same step in less memory, on a
    GPU or with ``fused: false``. Compiled kernels keep nothing between forward and backward and refuse it."""
    optimizer: Literal["adagrad", "rowwise_adagrad", "adam", "ftrl", "sgd"] = "adagrad"
    """Of touched table rows. ftrl: lr and poly2 only; with it the bias is trained by adagrad."""
    table: Literal["float32", "bfloat16"] = "float32"
    """Numbers of the embedding table in training: bfloat16 takes half the memory, rounded at random so that small steps
    add up; optimizer state and bundle stay float32. Not for lr and poly2."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Default: chosen by the data with ``auto``, else the model's own, see ``training.models.defaults``."""
    warm_rate: Annotated[float, Field(gt=0)] | None = None
    """Times the learning rate, given or not, where training goes on from another model (``--init``, ``daily``).
    Default: sqrt(rows / rows that its line has learned from), see ``training.models.defaults``."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls, to zero at the end of the last epoch; not with ftrl. See ``training.loop.schedule``."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate first rises; not with ftrl."""
    l2: Annotated[float, Field(ge=0)] | None = None
    """Penalty l2/2 * |row|^2 of each row a step touches; never on the bias. Default: chosen by the data
    with ``auto``, else the model's prior / rows, less where positives are rare; see ``training.models.defaults``."""
    dense_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of parameters beside the table (the bias, the layers of a network); same schedule. Default: the table's."""
    dense_l2: Annotated[float, Field(ge=0)] = 0.0
    """Penalty l2/2 * |w|^2 of parameters beside the table, in each step; never on the bias. Only for models that have
    such parameters."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """L1 penalty of ftrl, which makes weights true zeros; other optimizers have none."""
    patience: Annotated[int, Field(ge=1)] | None = 2
    """Epochs without a better validation logloss before training stops; null: train all epochs. The best are kept."""
    calibration: Literal["isotonic", "platt"] | None = None
    """What is fitted on the validation rows once training has ended, and applied to every probability; needs such rows.
    A model that goes on from another one without any (``daily``) keeps that one's. Default: none. See
    ``training.network.calibration``."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 42
    """Of the initial weights and of every shuffle."""
    streams: Annotated[int, Field(ge=1, le=1024)] = 8
    """Parts an epoch is cut into, shared among the ranks; at least as many as ranks."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Compute threads of a rank. Default: cores / ranks on the host."""
    fused: bool = True
    """Compiled kernels on the CPU; false: the plain torch reference."""
    cache_mb: Annotated[int, Field(ge=0)] = 256
    """Decoded rows that a rank keeps from epoch to epoch, in MB (10^6 bytes); files beyond are read in every epoch. Any
    file falls to any rank in some epoch, so each rank would need room for all of them."""
    reader: Literal["petastorm", "arrow"] = "petastorm"
    """What decodes snapshots: petastorm, or pyarrow alone where petastorm cannot be installed. Both read the same
    rows."""
    verify_checksums: bool = True
    """Compare the SHA-256 of every file, and of its rows, with the manifest when it is first read."""
    scratch: str | None = None
    """Local directory for copies of what lies on a store: snapshots that are read, the training at work. It must be
    your own. Default: one below that of temporary files (TMPDIR)."""
    scratch_mb: Annotated[int, Field(ge=0)] = 20_000
    """Copies of snapshots' files that stay there for the next epoch, rank or training of this machine, in MB; of
    others one at a time. Nothing is copied of files that are local."""
    timeout_seconds: Annotated[float, Field(gt=0, le=1e9)] = 300.0
    """How long a rank, or a node (--nnodes), waits for the others before it gives up."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often ranks started by --ranks or --nnodes go on from the last checkpoint after some were killed."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    auto: bool = True
    """Choose what is left out of learning_rate, l2 and model.dim by a short search on the validation rows, in
    ``train`` and where the first model of ``daily`` is trained; a model that goes on from another one keeps what was
    chosen for that. Without ``epochs``, training then goes on while validation improves. false: the model's priors."""

    def digested(self) -> dict[str, Any]:
        """What digests of a training cover: keys of later versions only where they change something, so that earlier
        checkpoints and trials are found again. All readers read the same rows, from wherever."""
        unchanged = {key for key, value in _LATER.items() if getattr(self, key) == value}
        return self.model_dump(exclude={"reader", "scratch", "scratch_mb"} | unchanged)

    @model_validator(mode="after")
    def _whole_streams(self) -> TrainingConfig:
        if self.batch_size % self.streams:
            nearest = max(1, round(self.batch_size / self.streams)) * self.streams
            raise ValueError(
                f"batch_size must be a multiple of {self.streams} streams such as {nearest}, got {self.batch_size}"
            )
        return self
