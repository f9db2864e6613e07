"""Which settings of model and training go together, told before there is any data."""

from __future__ import annotations

from fieldwise.features.errors import ConfigError
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.loop.schedule import require_parts, require_rate
from fieldwise.training.models import MODELS, family, resolved


def require_trainable(model: ModelConfig, training: TrainingConfig) -> None:
    """ConfigError naming a key that training would refuse whatever the data: an unknown kind, a setting that the kind
    or the optimizer has no use for; of ``auto``, any kind of the family."""
    for each in family(model):
        _require(each, training)


def _require(model: ModelConfig, training: TrainingConfig) -> None:
    resolved(model)
    latent, linear = MODELS[model.kind].latent, [kind for kind, each in MODELS.items() if not each.latent]
    if training.optimizer == "ftrl" and latent:
        raise ConfigError(
            "training.optimizer",
            expected=f"a model of linear weights ({', '.join(linear)}) for ftrl",
            found=f"model.kind {model.kind}",
            fix="Use adagrad.",
        )
    if training.l1 and training.optimizer != "ftrl":
        raise ConfigError(
            "training.l1",
            expected=f"0: {training.optimizer} has no L1 penalty",
            found=str(training.l1),
            fix="Use optimizer: ftrl.",
        )
    if training.table != "float32" and not latent:
        raise ConfigError(
            "training.table",
            expected="float32 for a model without latent weights",
            found=f"{training.table} for {model.kind}",
            fix="Remove training.table.",
        )
    if training.dense_l2 and not MODELS[model.kind].dense:
        raise ConfigError(
            "training.dense_l2",
            expected=f"0: {model.kind} has no parameters beside the table but the bias",
            found=str(training.dense_l2),
            fix="Remove training.dense_l2.",
        )
    require_parts(training, compiled=False)  # whether there will be a compiled kernel, the machine decides
    require_rate(training)
