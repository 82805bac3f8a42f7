"""Train LeNet on scikit-learn's handwritten digits, through either surface, compiled or not.

The network has LeNet-5's shape (LeCun et al., Proc. IEEE 1998) with ReLU, max pooling and a 3 x 3 second kernel, for
1 x 32 x 32 images: the 1,797 8 x 8 digits of the scikit-learn wheel, enlarged by bilinear interpolation
and, for training, moved by up to three pixels. The four combinations of --api and --jit see the
same first weights and the same batches, and so end with the same accuracy.

    python examples/lenet_digits.py --api functional --no-jit --epochs 20 --out runs/lenet
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import funcnn as fn
import funcnn.nn.functional as F
from funcnn import layers as L
from funcnn import nn, optim

# ---- the network, twice -------------------------------------------------------------------------------------------------
PURE = L.Sequential(
    conv1=L.Conv2d(1, 6, 5), relu1=L.ReLU(), pool1=L.MaxPool2d(2),
    conv2=L.Conv2d(6, 16, 3), relu2=L.ReLU(), pool2=L.MaxPool2d(2),
    flatten=L.Flatten(),
    fc1=L.Linear(16 * 6 * 6, 120), relu3=L.ReLU(),
    fc2=L.Linear(120, 84), relu4=L.ReLU(),
    fc3=L.Linear(84, 10),
)  # fmt: skip


class LeNet(nn.Module):
    """The same network, written as a PyTorch user would."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: fn.Tensor) -> fn.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = fn.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


@dataclass
class Digits:
    """Images (N, 1, 32, 32) in [-1, 1] and labels (N,), four fifths to train on and one held out, of every class alike."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load_digits() -> Digits:
    """The digits of the scikit-learn wheel, split the same way every time."""
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    images, labels = sklearn_digits(return_X_y=True)
    enlarged = enlarge(images.reshape(-1, 8, 8), 32)[:, None] / 8.0 - 1.0
    parts = train_test_split(
        enlarged.astype(np.float32), labels.astype(np.int64), test_size=0.2, random_state=0, stratify=labels
    )
    return Digits(parts[0], parts[2], parts[1], parts[3])


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of (N, h, w) images to (N, size, size), pixel centres aligned."""
    side = images.shape[-1]
    at = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, side - 1), at - low
    rows = images[:, low] * (1 - share)[:, None] + images[:, high] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, high] * share


@dataclass
class Trainer:
    """What the loop needs: one step giving (loss, correct), logits for evaluation, and the weights by name."""

    step: Callable[[Any, Any, float], tuple[Any, Any]]
    predict: Callable[[Any], Any]
    weights: Callable[[], dict[str, np.ndarray]]


def functional_trainer(key: Any, compiled: bool) -> Trainer:
    """Pure functions: parameters, state and optimizer state go in and come out."""
    params, state = PURE.init(key)
    held = {"params": params, "state": state, "opt": optim.adamw().init(params)}

    def loss_fn(params: Any, state: Any, x: Any, target: Any) -> Any:
        logits, state = PURE(params, state, x, training=True)
        return F.cross_entropy(logits, target), (state, logits)

    def pure_step(params: Any, state: Any, opt_state: Any, x: Any, target: Any, lr: float) -> Any:
        (loss, (state, logits)), grads = fn.value_and_grad(loss_fn, has_aux=True)(params, state, x, target)
        params, opt_state = optim.adamw(lr=lr).update(grads, opt_state, params)
        return params, state, opt_state, loss, (logits.argmax(1) == target).sum()

    run = fn.jit(pure_step, donate_argnums=(0, 2)) if compiled else pure_step
    infer = (
        fn.jit(lambda params, state, x: PURE(params, state, x)[0]) if compiled else (lambda p, s, x: PURE(p, s, x)[0])
    )

    def step(x: Any, target: Any, lr: float) -> tuple[Any, Any]:
        held["params"], held["state"], held["opt"], loss, correct = run(*held.values(), x, target, lr)
        return loss, correct

    return Trainer(
        step,
        lambda x: infer(held["params"], held["state"], x),
        lambda: {path: t.numpy() for path, t in fn.tree.paths(held["params"])},
    )


def module_trainer(key: Any, compiled: bool) -> Trainer:
    """PyTorch's way: a module, ``loss.backward()``, ``optimizer.step()``."""
    model = LeNet()
    model.load_state_dict(dict(fn.tree.paths(PURE.init(key)[0])))
    opt = optim.AdamW(model.parameters())

    def update(x: Any, target: Any) -> tuple[Any, Any]:
        opt.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, target)
        loss.backward()
        opt.step()
        return loss.detach(), (logits.argmax(1) == target).sum()

    compiled_update = fn.jit(update) if compiled else update

    def step(x: Any, target: Any, lr: float) -> tuple[Any, Any]:
        opt.param_groups[0]["lr"] = lr  # a compiled step reads it at each call
        return compiled_update(x, target)

    @fn.no_grad()
    def infer(x: Any) -> Any:
        return model(x)

    return Trainer(
        step,
        fn.jit(infer) if compiled else infer,
        lambda: {name: t.numpy() for name, t in model.state_dict().items()},
    )


@dataclass
class History:
    """Per epoch: mean loss, training accuracy, test accuracy, images per second."""

    loss: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)


def moved(images: np.ndarray, key: Any, reach: int = 3) -> np.ndarray:
    """Each image moved by up to ``reach`` pixels up or down and left or right, background coming in at the edge."""
    size = images.shape[-1]
    wide = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), constant_values=-1.0)
    corners = np.array(fn.random.randint(key, (len(images), 2), 0, 2 * reach + 1))
    return np.stack([image[:, a : a + size, b : b + size] for image, (a, b) in zip(wide, corners, strict=True)])


def train(
    trainer: Trainer, digits: Digits, epochs: int, batch_size: int, lr: float, seed: int, quiet: bool = False
) -> History:
    """Run the epochs with a progress bar; the learning rate falls along half a cosine."""
    from tqdm import tqdm

    history = History()
    key = fn.random.fold_in(fn.random.key(seed), 1)
    count = len(digits.train_x)
    every = 0.1 if sys.stderr.isatty() else 10  # seconds; into a file every refresh is a line
    bar = tqdm(total=epochs * count, unit="img", disable=quiet, smoothing=0.1, mininterval=every)
    for epoch in range(epochs):
        order = np.array(fn.random.permutation(fn.random.fold_in(key, epoch), count))
        start, losses, correct = time.perf_counter(), 0.0, 0
        rate = lr * (0.5 + 0.5 * np.cos(np.pi * epoch / epochs))
        for begin in range(0, count, batch_size):
            rows = order[begin : begin + batch_size]
            images = moved(digits.train_x[rows], fn.random.fold_in(key, 1_000_000 + epoch * count + begin))
            loss, hits = trainer.step(fn.tensor(images), fn.tensor(digits.train_y[rows]), float(rate))
            losses += float(loss) * len(rows)
            correct += int(hits)
            done = begin + len(rows)
            bar.set_postfix(epoch=epoch + 1, loss=f"{losses / done:.4f}", acc=f"{correct / done:.3f}", refresh=False)
            bar.update(len(rows))
        history.speed.append(count / (time.perf_counter() - start))
        history.loss.append(losses / count)
        history.train.append(correct / count)
        history.test.append(accuracy(trainer, digits)[0])
    bar.close()
    return history


def accuracy(trainer: Trainer, digits: Digits) -> tuple[float, np.ndarray]:
    """Share of the held-out digits that are recognised, and the probabilities (N, 10) given to the classes."""
    probabilities = np.array(F.softmax(trainer.predict(fn.tensor(digits.test_x)), 1))
    return float((probabilities.argmax(1) == digits.test_y).mean()), probabilities


def picture(history: History, digits: Digits, probabilities: np.ndarray, title: str, path: Path) -> None:
    """Loss and accuracy curves; below, the test digits taken for others, then those recognised with the least certainty."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.4, 3.6])
    top.suptitle(title)
    curves(history, *top.subplots(1, 2))
    predicted, certainty = probabilities.argmax(1), probabilities[np.arange(len(digits.test_y)), digits.test_y]
    wrong = predicted != digits.test_y
    bottom.suptitle(
        f"{wrong.sum()} of {len(wrong)} test digits misclassified (red); then the closest calls", fontsize=11
    )
    shown = np.lexsort((certainty, ~wrong))
    for axes, i in zip(bottom.subplots(2, 8).flat, shown, strict=False):
        axes.imshow(digits.test_x[i, 0], cmap="gray_r")
        told = (
            f"{digits.test_y[i]} taken for {predicted[i]}"
            if wrong[i]
            else f"{digits.test_y[i]}, p = {certainty[i]:.2f}"
        )
        axes.set_title(told, fontsize=9, color="tab:red" if wrong[i] else "black")
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curves(history: History, left: Any, right: Any) -> None:
    """Training loss on the left axes, accuracies on the right."""
    epochs = np.arange(1, len(history.loss) + 1)
    left.plot(epochs, history.loss, color="tab:blue", marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="cross-entropy", title="training loss", yscale="log")
    right.plot(epochs, history.train, label="train (moved digits)", color="tab:blue", marker="o", markersize=3)
    right.plot(epochs, history.test, label="test", color="tab:orange", marker="o", markersize=3)
    right.set(xlabel="epoch", ylabel="accuracy", title="accuracy")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)


def run(args: argparse.Namespace) -> tuple[float, dict[str, np.ndarray]]:
    """Train as the arguments say; the test accuracy and the weights."""
    digits = load_digits()
    make = functional_trainer if args.api == "functional" else module_trainer
    trainer = make(fn.random.key(args.seed), args.jit)
    history = train(trainer, digits, args.epochs, args.batch_size, args.lr, args.seed, args.quiet)
    score, probabilities = accuracy(trainer, digits)
    weights = trainer.weights()
    if args.out is not None:
        out = Path(args.out)
        title = f"LeNet on digits: {args.api} api, {'jit' if args.jit else 'eager'}, test accuracy {score:.2%}"
        picture(history, digits, probabilities, title, out / "lenet_digits.png")
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(w) for name, w in weights.items()}, str(out / "lenet_digits.safetensors"))
        print(f"wrote {out / 'lenet_digits.png'} and {out / 'lenet_digits.safetensors'}")
    speed = f"{np.median(history.speed):.0f} images/s" if history.speed else "no training"
    print(f"test accuracy {score:.2%} on {len(digits.test_y)} held-out digits ({args.api}, jit={args.jit}, {speed})")
    return score, weights


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--api", choices=("functional", "module"), default="module", help="pure functions or nn.Module")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile the training step")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate of the first epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/lenet_digits", help="folder for the picture and the weights")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(parse())
