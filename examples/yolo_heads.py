"""YOLOv8n and YOLO11n with half of every width, up to their raw heads: boxes and scores before decoding.

The library ultralytics is under the AGPL. softprune neither needs nor imports it; this script does, if you have
installed it, and ends with a sentence otherwise. The networks are built from their configurations, with nothing to
download; for your own, take `YOLO("best.pt").model`, and retrain during a soft removal. The slim network is a graph,
for images of one size in batches of any size.

Install:  pip install softprune ultralytics
Run:      python examples/yolo_heads.py          (--quick: YOLOv8n only)
Expect:   YOLOv8n: 3,157,200 parameters become 926,040; YOLO11n: 2,624,080 become 742,232. 25 s on one core.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

import compress

NETWORKS = ["yolov8n.yaml", "yolo11n.yaml"]
SIZE = 320  # height and width of the images that the slim network and the file take, in any batch; a multiple of 32


class RawHeads(nn.Module):
    """What the heads say of each place: a distribution for each side of a box, and a score for each class."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        _, raw = self.detector(images)
        return {"boxes": raw["boxes"], "scores": raw["scores"]}


def with_statistics(detector: nn.Module) -> nn.Module:
    """In place of training, the norms measure random images: without statistics they let no signal through."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    detector.train()
    with torch.no_grad():
        for _ in range(5):
            detector(torch.rand(8, 3, 96, 96))
    return detector.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="YOLOv8n only")
    parser.add_argument("--out", type=Path, default=Path("runs/yolo_heads"))
    options = parser.parse_args()
    if importlib.util.find_spec("ultralytics") is None:
        print("Skipped: the package ultralytics (AGPL) is not installed: pip install ultralytics")
        return
    from ultralytics.nn.tasks import DetectionModel

    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images = torch.rand(2, 3, SIZE, SIZE)
    for name in NETWORKS[: 1 if options.quick else None]:
        model = RawHeads(with_statistics(DetectionModel(name, verbose=False))).eval()
        report(f"{name} dense", model, images)
        pruner = compress.Pruner(model, compress.nodes("*"), sparsity=0.5, example=images)
        pruner.finalize()
        small = compress.slim(model, images)  # raises unless small(x) == model(x)
        report(f"{name} slim", small, images)
        file = options.out / f"{Path(name).stem}.onnx"
        compress.export.onnx(small, file, images)
        print(f"{file}: {file.stat().st_size:,} bytes")


def report(name: str, model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        shapes = {name: tuple(raw.shape) for name, raw in model(images).items()}
    print(f"{name:18} {sum(parameter.numel() for parameter in model.parameters()):9,} parameters, {shapes}")


if __name__ == "__main__":
    main()
