"""Common networks as people write them by hand, each with the arguments of a call: (class, arguments, length, other).

`arguments(rows, length)` makes the arguments; `other` is another length that the network takes, 0 if it takes one only.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# Sequences.


class TCN(nn.Module):
    """Dilated causal convolutions with weight norm (Bai et al. 2018)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        sizes = [4, channels, channels, channels]
        self.first = nn.ModuleList(
            weight_norm(nn.Conv1d(sizes[i], channels, 3, padding=2 * 2**i, dilation=2**i)) for i in range(3)
        )
        self.second = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, 3, padding=2 * 2**i, dilation=2**i)) for i in range(3)
        )
        self.shortcut = nn.Conv1d(4, channels, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, series: Tensor) -> Tensor:
        for level, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            inner = functional.relu(first(series)[..., : series.shape[-1]])
            inner = functional.relu(second(inner)[..., : series.shape[-1]])
            series = functional.relu(inner + (self.shortcut(series) if level == 0 else series))
        out: Tensor = self.head(series[:, :, -1])
        return out


class WaveNet(nn.Module):
    """Gated dilated convolutions with residual and skip connections."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, channels, 1)
        self.gates = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=2**i) for i in range(4))
        self.residual = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(4))
        self.skip = nn.ModuleList(nn.Conv1d(channels, 64, 1) for _ in range(4))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(64, 64, 1), nn.ReLU(), nn.Conv1d(64, 16, 1))

    def forward(self, wave: Tensor) -> Tensor:
        stream = self.start(wave)
        skips: Any = 0
        for level, gate in enumerate(self.gates):
            value, opening = gate(functional.pad(stream, (2**level, 0))).chunk(2, dim=1)
            gated = torch.tanh(value) * torch.sigmoid(opening)
            skips = skips + self.skip[level](gated)
            stream = stream + self.residual[level](gated)
        out: Tensor = self.end(skips)
        return out


class Seq2Seq(nn.Module):
    """A GRU reads, a GRU writes, dot-product attention between them (Luong et al. 2015)."""

    def __init__(self, vocabulary: int = 64, width: int = 48) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * width, width)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.attention, self.out = nn.Linear(width, 2 * width), nn.Linear(3 * width, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        read, last = self.encoder(self.source(source))
        start = torch.tanh(self.bridge(torch.cat([last[0], last[1]], dim=1)))
        written, _ = self.decoder(self.target(target), start.unsqueeze(0))
        weights = torch.softmax(torch.bmm(self.attention(written), read.transpose(1, 2)), dim=-1)
        return self.out(torch.cat([written, torch.bmm(weights, read)], dim=-1)), weights


class Bahdanau(nn.Module):
    """A decoder of a GRU cell with additive attention, in a loop over the target."""

    def __init__(self, vocabulary: int = 64, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.encoder = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.query, self.key, self.energy = nn.Linear(width, 32), nn.Linear(width, 32), nn.Linear(32, 1, bias=False)
        self.cell, self.out = nn.GRUCell(2 * width, width), nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read, (state, _) = self.encoder(self.embed(source))
        hidden, steps = state[-1], []
        keys = self.key(read)
        for word in self.embed(target).unbind(dim=1):
            energy = self.energy(torch.tanh(keys + self.query(hidden).unsqueeze(1))).squeeze(-1)
            context = (torch.softmax(energy, dim=-1).unsqueeze(-1) * read).sum(dim=1)
            hidden = self.cell(torch.cat([word, context], dim=-1), hidden)
            steps.append(self.out(hidden))
        return torch.stack(steps, dim=1)


class DeepAR(nn.Module):
    """An LSTM over values and covariates that gives the parameters of a distribution at each step."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.series = nn.Embedding(10, 8)
        self.lstm = nn.LSTM(1 + 3 + 8, width, num_layers=2, batch_first=True, dropout=0.1)
        self.mean, self.scale = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, values: Tensor, covariates: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
        scale = values.abs().mean(dim=1, keepdim=True) + 1
        same = self.series(series).unsqueeze(1).expand(-1, values.shape[1], -1)
        hidden, _ = self.lstm(torch.cat([(values / scale).unsqueeze(-1), covariates, same], dim=-1))
        mean, spread = self.mean(hidden).squeeze(-1), functional.softplus(self.scale(hidden)).squeeze(-1)
        return mean * scale, spread * scale


class NBeats(nn.Module):
    """Blocks that take what they explain off the series (Oreshkin et al. 2020)."""

    def __init__(self, past: int = 24, future: int = 6, width: int = 64) -> None:
        super().__init__()
        self.past = past
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(past, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()) for _ in range(3)
        )
        self.thetas = nn.ModuleList(nn.Linear(width, 8 + 4) for _ in range(3))
        self.backcast = nn.ModuleList(nn.Linear(8, past, bias=False) for _ in range(3))
        self.forecast = nn.ModuleList(nn.Linear(4, future, bias=False) for _ in range(3))

    def forward(self, series: Tensor) -> Tensor:
        total = series.new_zeros(len(series), 6)
        for block, theta, back, ahead in zip(self.blocks, self.thetas, self.backcast, self.forecast, strict=True):
            first, second = theta(block(series)).split([8, 4], dim=-1)
            series = series - back(first)
            total = total + ahead(second)
        return total


class CRNN(nn.Module):
    """Convolutions, then a bidirectional LSTM over columns, for text in pictures; length first, as CTC takes it."""

    def __init__(self, classes: int = 37) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, pool in ((1, 16, (2, 2)), (16, 32, (2, 2)), (32, 48, (2, 1)), (48, 64, (2, 1))):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(pool)]
        self.cnn = nn.Sequential(*layers)
        self.rnn = nn.LSTM(2 * 64, 48, num_layers=2, bidirectional=True)
        self.fc = nn.Linear(96, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.cnn(pictures)
        batch, channels, height, width = features.size()
        columns = features.reshape(batch, channels * height, width).permute(2, 0, 1)
        hidden, _ = self.rnn(columns)
        return functional.log_softmax(self.fc(hidden), dim=2).permute(1, 0, 2)


class PackedClassifier(nn.Module):
    """An LSTM over sequences of several lengths."""

    def __init__(self, vocabulary: int = 64, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, width, batch_first=True, bidirectional=True)
        self.fc = nn.Sequential(nn.Linear(4 * width, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        out: Tensor = self.fc(torch.cat([hidden.mean(dim=1), hidden.amax(dim=1)], dim=-1))
        return out


class ConvLSTM(nn.Module):
    """An LSTM whose gates are convolutions, over the frames of a film."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.gates = nn.ModuleList(nn.Conv2d(size + channels, 4 * channels, 3, padding=1) for size in (3, channels))
        self.out = nn.Conv2d(channels, 3, 1)

    def forward(self, film: Tensor) -> Tensor:
        batch, _, _, height, width = film.shape
        states = [
            (film.new_zeros(batch, self.channels, height, width), film.new_zeros(batch, self.channels, height, width))
            for _ in self.gates
        ]
        for time in range(film.shape[1]):
            frame = film[:, time]
            for level, gate in enumerate(self.gates):
                hidden, cell = states[level]
                enter, forget, leave, new = gate(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
                cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
                frame = torch.sigmoid(leave) * torch.tanh(cell)
                states[level] = (frame, cell)
        out: Tensor = self.out(frame)
        return out


class Transformer(nn.Module):
    """torch's own encoder and decoder with a causal mask, sinusoidal positions and padding."""

    positions: Tensor

    def __init__(self, vocabulary: int = 64, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(vocabulary, width)
        angle = torch.arange(64)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        self.register_buffer("positions", torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1))
        self.transformer = nn.Transformer(width, 4, 2, 2, 96, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        padding = source == 0
        first = self.embed(source) * math.sqrt(self.width) + self.positions[: source.shape[1]]
        second = self.embed(target) * math.sqrt(self.width) + self.positions[: target.shape[1]]
        hidden = self.transformer(
            first, second, tgt_mask=causal, src_key_padding_mask=padding, memory_key_padding_mask=padding
        )
        out: Tensor = self.out(hidden)
        return out


class NanoGPT(nn.Module):
    """Causal self-attention written out, with a mask in a buffer and the embedding tied to the head."""

    mask: Tensor

    def __init__(self, vocabulary: int = 64, width: int = 48, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(32, width)
        blocks = [
            nn.ModuleDict(
                {
                    "norm_1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "proj": nn.Linear(width, width),
                    "norm_2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
                }
            )
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("mask", torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32))

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        stream = self.wte(ids) + self.wpe(torch.arange(length, device=ids.device))
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            batch, length, width = stream.size()
            q, k, v = block["qkv"](block["norm_1"](stream)).split(width, dim=2)
            q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in (q, k, v))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
            mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(batch, length, width)
            stream = stream + block["proj"](mixed)
            stream = stream + block["mlp"](block["norm_2"](stream))
        out: Tensor = self.head(self.norm(stream))
        return out


class Perceiver(nn.Module):
    """Learned latents that read an input of any length by cross-attention."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(8, width))
        self.enter = nn.Linear(6, 24)
        self.cross = nn.MultiheadAttention(width, 4, kdim=24, vdim=24, batch_first=True)
        self.block = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=True)
        self.out = nn.Linear(width, 5)

    def forward(self, items: Tensor) -> Tensor:
        latents = self.latents.unsqueeze(0).repeat(items.size(0), 1, 1)
        items = self.enter(items)
        latents = latents + self.cross(latents, items, items, need_weights=False)[0]
        out: Tensor = self.out(self.block(latents).mean(dim=1))
        return out


# Tables.


class TabNet(nn.Module):
    """Steps that choose features by a mask and take part of the outcome each (Arik & Pfister 2021)."""

    def __init__(self, features: int = 16, width: int = 24, steps: int = 3) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.BatchNorm1d(features)
        self.shared = nn.Linear(features, 4 * width, bias=False)
        self.transforms = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, 4 * width, bias=False), nn.BatchNorm1d(4 * width), nn.GLU())
            for _ in range(steps)
        )
        self.shared_norm = nn.BatchNorm1d(4 * width)
        self.attention = nn.ModuleList(
            nn.Sequential(nn.Linear(width, features, bias=False), nn.BatchNorm1d(features)) for _ in range(steps)
        )
        self.out = nn.Linear(width, 3)

    def forward(self, table: Tensor) -> tuple[Tensor, Tensor]:
        table = self.norm(table)
        prior, entropy = torch.ones_like(table), torch.zeros((), device=table.device)
        total: Any = 0
        seen = functional.glu(self.shared_norm(self.shared(table)))[:, self.width :]
        for transform, attention in zip(self.transforms, self.attention, strict=True):
            mask = torch.softmax(attention(seen) * prior, dim=-1)
            prior = prior * (1.3 - mask)
            entropy = entropy - (mask * torch.log(mask + 1e-10)).sum(dim=-1).mean()
            first = functional.glu(self.shared_norm(self.shared(mask * table)))
            both = (first + transform(first)) * math.sqrt(0.5)
            decided, seen = both[:, : self.width], both[:, self.width :]
            total = total + functional.relu(decided)
        return self.out(total), entropy


class DLRM(nn.Module):
    """Embedding bags and dense features that interact by dot products (Naumov et al. 2019)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(50, width, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 6, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, dense: Tensor, sparse: list[Tensor]) -> Tensor:
        first = self.bottom(dense)
        parts = torch.stack([first, *(table(ids) for table, ids in zip(self.tables, sparse, strict=True))], dim=1)
        products = torch.bmm(parts, parts.transpose(1, 2))
        rows, columns = torch.tril_indices(4, 4, offset=-1)
        out: Tensor = torch.sigmoid(self.top(torch.cat([first, products[:, rows, columns]], dim=1)))
        return out


class FTTransformer(nn.Module):
    """Each feature becomes a token (Gorishniy et al. 2021)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, width)), nn.Parameter(torch.randn(6, width))
        self.categories = nn.ModuleList(nn.Embedding(10, width) for _ in range(3))
        self.cls = nn.Parameter(torch.randn(width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        parts = [self.cls.expand(len(numbers), 1, -1), numbers.unsqueeze(-1) * self.weight + self.bias]
        parts += [table(categories[:, place]).unsqueeze(1) for place, table in enumerate(self.categories)]
        out: Tensor = self.head(self.encoder(torch.cat(parts, dim=1))[:, 0])
        return out


class WideAndDeep(nn.Module):
    """A factorisation machine beside a network with batch norm (DeepFM)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.linear, self.factors = nn.Embedding(100, 1), nn.Embedding(100, width)
        self.deep = nn.Sequential(
            nn.Linear(5 * width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU()
        )
        self.out = nn.Linear(32, 1)

    def forward(self, fields: Tensor) -> Tensor:
        factors = self.factors(fields)
        pairs = 0.5 * (factors.sum(dim=1).pow(2) - factors.pow(2).sum(dim=1)).sum(dim=1, keepdim=True)
        out: Tensor = self.linear(fields).sum(dim=1) + pairs + self.out(self.deep(factors.flatten(1)))
        return out


class KAN(nn.Module):
    """Layers whose edges are functions: a base, and splines as Gaussian bumps (Liu et al. 2024)."""

    grid: Tensor

    def __init__(self, sizes: tuple[int, ...] = (8, 24, 24, 3)) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, 6))
        pairs = list(itertools.pairwise(sizes))
        self.base = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.splines = nn.ParameterList(torch.randn(after, before, 6) * 0.2 for before, after in pairs)

    def forward(self, values: Tensor) -> Tensor:
        for base, spline in zip(self.base, self.splines, strict=True):
            bumps = torch.exp(-((values.unsqueeze(-1) - self.grid) ** 2))
            values = base(functional.silu(values)) + torch.einsum("bik,oik->bo", bumps, spline)
        return values


class MixtureOfExperts(nn.Module):
    """A router that takes the two best experts for each sample."""

    def __init__(self, width: int = 32, experts: int = 4) -> None:
        super().__init__()
        self.enter, self.router = nn.Linear(10, width), nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, width)) for _ in range(experts)
        )
        self.out = nn.Linear(width, 3)

    def forward(self, samples: Tensor) -> Tensor:
        hidden = functional.relu(self.enter(samples))
        best, chosen = torch.topk(torch.softmax(self.router(hidden), dim=-1), 2)
        weights = torch.zeros(len(samples), len(self.experts), device=samples.device).scatter(1, chosen, best)
        mixed = torch.stack([expert(hidden) for expert in self.experts], dim=1)
        out: Tensor = self.out((weights.unsqueeze(-1) * mixed).sum(dim=1))
        return out


class Siamese(nn.Module):
    """One encoder for two pictures, and the distance between them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 32),
        )
        self.out = nn.Linear(32, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        first, second = functional.normalize(self.encoder(one)), functional.normalize(self.encoder(other))
        out: Tensor = self.out(torch.abs(first - second))
        return out


# Graphs and points.


class GCN(nn.Module):
    """Convolutions over a dense adjacency (Kipf & Welling 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, width) for size in (7, width, width))
        self.out = nn.Linear(width, 4)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.sum(dim=-1).clamp(min=1).rsqrt()
        normal = degree.unsqueeze(-1) * adjacency * degree.unsqueeze(-2)
        for layer in self.layers:
            nodes = functional.relu(normal @ layer(nodes))
        out: Tensor = self.out(nodes.mean(dim=1))
        return out


class GAT(nn.Module):
    """Attention along the edges, several heads (Velickovic et al. 2018)."""

    def __init__(self, width: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(nn.Linear(size, heads * width, bias=False) for size in (7, heads * width))
        self.left = nn.ParameterList(torch.randn(1, 1, heads, width) * 0.3 for _ in range(2))
        self.right = nn.ParameterList(torch.randn(1, 1, heads, width) * 0.3 for _ in range(2))
        self.out = nn.Linear(heads * width, 4)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        for layer, left, right in zip(self.layers, self.left, self.right, strict=True):
            batch, count, _ = nodes.shape
            hidden = layer(nodes).view(batch, count, self.heads, -1)
            scores = (hidden * left).sum(dim=-1).unsqueeze(2) + (hidden * right).sum(dim=-1).unsqueeze(1)
            scores = functional.leaky_relu(scores, 0.2).masked_fill(adjacency.unsqueeze(-1) == 0, -1e9)
            nodes = functional.elu(torch.einsum("bijh,bjhd->bihd", torch.softmax(scores, dim=2), hidden)).flatten(2)
        out: Tensor = self.out(nodes)
        return out


class PointNet(nn.Module):
    """A network for sets of points with a learned transform (Qi et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.align = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.matrix = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 9))
        self.features = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 128, 1), nn.BatchNorm1d(128), nn.ReLU()
        )
        self.out = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))

    def forward(self, points: Tensor) -> Tensor:
        pooled = torch.max(self.align(points), 2)[0]
        matrix = self.matrix(pooled).view(-1, 3, 3) + torch.eye(3, device=points.device)
        moved = torch.bmm(points.transpose(2, 1), matrix).transpose(2, 1)
        out: Tensor = self.out(torch.max(self.features(moved), 2, keepdim=True)[0].view(-1, 128))
        return out


# Pictures, volumes and generators.


def _double(convolution: Any, norm: Any, before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(before, after, 3, padding=1, bias=False),
        norm(after),
        nn.ReLU(inplace=True),
        convolution(after, after, 3, padding=1, bias=False),
        norm(after),
        nn.ReLU(inplace=True),
    )


class UNet3D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 16, 24, 32)
        self.down = nn.ModuleList(_double(nn.Conv3d, nn.InstanceNorm3d, *pair) for pair in itertools.pairwise(sizes))
        self.up = nn.ModuleList([nn.ConvTranspose3d(32, 24, 2, 2), nn.ConvTranspose3d(24, 16, 2, 2)])
        self.mend = nn.ModuleList(
            [_double(nn.Conv3d, nn.BatchNorm3d, 48, 24), _double(nn.Conv3d, nn.BatchNorm3d, 32, 16)]
        )
        self.out = nn.Conv3d(16, 2, 1)

    def forward(self, volume: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            volume = block(functional.max_pool3d(volume, 2) if level else volume)
            kept.append(volume)
        for up, mend, skip in zip(self.up, self.mend, kept[-2::-1], strict=True):
            volume = mend(torch.cat([skip, up(volume)], dim=1))
        out: Tensor = self.out(volume)
        return out


class UNet(nn.Module):
    """The usual one, that pads what an odd size leaves over."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (_double(nn.Conv2d, nn.BatchNorm2d, *pair) for pair in ((3, 16), (16, 32)))
        self.low = _double(nn.Conv2d, nn.BatchNorm2d, 32, 64)
        self.ups = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)])
        self.mends = nn.ModuleList([_double(nn.Conv2d, nn.BatchNorm2d, *pair) for pair in ((64, 32), (32, 16))])
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, picture: Tensor) -> Tensor:
        one = self.first(picture)
        two = self.second(functional.max_pool2d(one, 2))
        hidden = self.low(functional.max_pool2d(two, 2))
        for up, mend, skip in zip(self.ups, self.mends, (two, one), strict=True):
            hidden = up(hidden)
            high, wide = skip.size(2) - hidden.size(2), skip.size(3) - hidden.size(3)
            hidden = functional.pad(hidden, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
            hidden = mend(torch.cat([skip, hidden], dim=1))
        out: Tensor = self.out(hidden)
        return out


class Pix2Pix(nn.Module):
    """A generator from pictures to pictures with instance norm and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList(nn.Conv2d(*pair, 4, 2, 1) for pair in ((3, 16), (16, 32), (32, 64)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(*pair, 4, 2, 1) for pair in ((64, 32), (64, 16), (32, 3)))
        self.norms = nn.ModuleList(nn.InstanceNorm2d(size, affine=True) for size in (16, 32))

    def forward(self, picture: Tensor) -> Tensor:
        skips = []
        for down in self.downs:
            picture = functional.leaky_relu(down(picture), 0.2)
            skips.append(picture)
        hidden = skips.pop()
        hidden = functional.relu(self.norms[1](self.ups[0](hidden)))
        hidden = functional.relu(self.norms[0](self.ups[1](torch.cat([hidden, skips.pop()], dim=1))))
        return torch.tanh(self.ups[2](torch.cat([hidden, skips.pop()], dim=1)))


class DCGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(20, 64, 4, 1, 0, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
        for before, after in ((64, 48), (48, 32)):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:
        out: Tensor = self.main(noise[:, :, None, None])
        return out


class Discriminator(nn.Module):
    """Convolutions with spectral norm, and the spread over the batch as one more channel left out."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 16, 32, 64)
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(*pair, 4, 2, 1)) for pair in itertools.pairwise(sizes))
        self.out = spectral_norm(nn.Linear(64 * 16, 1))

    def forward(self, picture: Tensor) -> Tensor:
        for layer in self.layers:
            picture = functional.leaky_relu(layer(picture), 0.2)
        out: Tensor = self.out(picture.flatten(1))
        return out


class ModulatedConv(nn.Module):
    """A convolution whose weights each sample's style scales and normalises (StyleGAN 2)."""

    def __init__(self, before: int, after: int, style: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3) * 0.1)
        self.style, self.bias = nn.Linear(style, before), nn.Parameter(torch.zeros(after))
        self.strength = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, picture: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        scale = self.style(style) + 1
        norms = torch.einsum("oikl,bi->bo", self.weight**2, scale**2).add(1e-6).rsqrt()
        hidden = functional.conv2d(picture * scale[:, :, None, None], self.weight, padding=1)
        hidden = hidden * norms[:, :, None, None] + self.bias[:, None, None] + self.strength * noise
        return functional.leaky_relu(hidden, 0.2)


class StyleGAN(nn.Module):
    """A mapping network, a learned start, and noise at each level."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 32, 4, 4))
        self.convolutions = nn.ModuleList(ModulatedConv(*pair, 32) for pair in ((32, 32), (32, 24), (24, 16)))
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, z: Tensor, noise: list[Tensor]) -> Tensor:
        style = self.mapping(functional.normalize(z))
        picture = self.start.expand(len(z), -1, -1, -1)
        for level, (convolution, own) in enumerate(zip(self.convolutions, noise, strict=True)):
            if level:
                picture = functional.interpolate(picture, scale_factor=2.0, mode="bilinear", align_corners=False)
            picture = convolution(picture, style, own)
        out: Tensor = self.out(picture)
        return out


class VAE(nn.Module):
    """Convolutions, a sampled latent (random in evaluation too), and the way back."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(32 * 49, latent), nn.Linear(32 * 49, latent)
        self.enter = nn.Linear(latent, 32 * 49)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(picture).flatten(1)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(self.enter(latent).view(-1, 32, 7, 7)), mean, log_variance


class RealNVP(nn.Module):
    """A normalising flow: each half scales and moves the other (Dinh et al. 2017)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.scale = nn.ModuleList(self._network(width) for _ in range(4))
        self.move = nn.ModuleList(self._network(width) for _ in range(4))

    @staticmethod
    def _network(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(values.shape[0], device=values.device)
        for scale, move in zip(self.scale, self.move, strict=True):
            first, second = values.chunk(2, dim=1)
            factor = torch.tanh(scale(first))
            values = torch.cat([second * torch.exp(factor) + move(first), first], dim=1)
            total = total + factor.sum(dim=1)
        return values, total


class ESPCN(nn.Module):
    """Super-resolution by residual blocks and a pixel shuffle."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, 2 * width, 3, padding=1), nn.PReLU(), nn.Conv2d(2 * width, width, 3, padding=1)
            )
            for _ in range(2)
        )
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        hidden = self.enter(picture)
        for block in self.blocks:
            hidden = hidden + 0.1 * block(hidden)
        out: Tensor = self.out(self.up(hidden)) + functional.interpolate(picture, scale_factor=2, mode="bicubic")
        return out


class YoloHead(nn.Module):
    """A small detector with a pyramid, whose boxes are decoded on grids made for the size at hand."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(*(self._layer(*pair, 2) for pair in ((3, 16), (16, 32))))
        self.down, self.lateral = self._layer(32, 48, 2), nn.Conv2d(48, 32, 1)
        self.merge = self._layer(64, 32, 1)
        self.heads = nn.ModuleList(nn.Conv2d(size, 5 + classes, 1) for size in (32, 48))

    @staticmethod
    def _layer(before: int, after: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())

    def forward(self, picture: Tensor) -> Tensor:
        high = self.stem(picture)
        low = self.down(high)
        up = functional.interpolate(self.lateral(low), size=high.shape[-2:], mode="nearest")
        found = []
        for stride, features, head in zip(
            (4, 8), (self.merge(torch.cat([high, up], dim=1)), low), self.heads, strict=True
        ):
            out = head(features)
            batch, _, height, width = out.shape
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack([x, y]).to(out)
            out = torch.cat(
                [(out[:, :2].sigmoid() + grid) * stride, out[:, 2:4].exp() * stride, out[:, 4:].sigmoid()], 1
            )
            found.append(out.view(batch, 5 + self.classes, -1).permute(0, 2, 1))
        return torch.cat(found, dim=1)


class SpatialTransformer(nn.Module):
    """A network that straightens its picture before it looks at it (Jaderberg et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Conv2d(1, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 16, 5), nn.ReLU())
        self.theta = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 6))
        self.what = nn.Sequential(nn.Conv2d(1, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 32, 5), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(32 * 64, 50), nn.ReLU(), nn.Linear(50, 10))

    def forward(self, picture: Tensor) -> Tensor:
        theta = self.theta(self.where(picture).view(-1, 16 * 49)).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(picture.size()), align_corners=False)
        picture = functional.grid_sample(picture, grid, align_corners=False)
        out: Tensor = self.out(self.what(picture).flatten(1))
        return out


class SpectrogramNet(nn.Module):
    """A spectrogram computed in the network, then convolutions."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
        )
        self.gru, self.out = nn.GRU(32, 24, batch_first=True), nn.Linear(24, 10)

    def forward(self, wave: Tensor) -> Tensor:
        spectrum = torch.stft(wave, 64, 32, window=self.window, return_complex=True).abs().clamp(min=1e-5).log()
        hidden = self.features(spectrum.unsqueeze(1)).mean(dim=2).transpose(1, 2)
        out: Tensor = self.out(self.gru(hidden)[0][:, -1])
        return out


def _words(rows: int, length: int) -> Tensor:
    return torch.randint(1, 64, (rows, length))


def _adjacency(rows: int, count: int) -> Tensor:
    edges = (torch.rand(rows, count, count) < 0.4).float()
    return ((edges + edges.transpose(1, 2) + torch.eye(count)) > 0).float()


def _packed(rows: int, length: int) -> tuple[Tensor, Tensor]:
    return _words(rows, length), torch.tensor([length] + [length - 3] * (rows - 1))


def _levels(rows: int, _: int) -> tuple[Tensor, list[Tensor]]:
    return torch.randn(rows, 16), [torch.randn(rows, 1, side, side) for side in (4, 8, 16)]


Entry = tuple[Callable[[], nn.Module], Callable[[int, int], Any], int, int]
NETWORKS: dict[str, Entry] = {
    "TCN": (TCN, lambda n, t: torch.randn(n, 4, t), 32, 48),
    "WaveNet": (WaveNet, lambda n, t: torch.randn(n, 1, t), 40, 56),
    "Seq2Seq": (Seq2Seq, lambda n, t: {"source": _words(n, t), "target": _words(n, 7)}, 12, 9),
    "Bahdanau": (Bahdanau, lambda n, t: (_words(n, t), _words(n, 5)), 12, 9),
    "DeepAR": (DeepAR, lambda n, t: (torch.rand(n, t), torch.randn(n, t, 3), torch.randint(10, (n,))), 12, 18),
    "NBeats": (NBeats, lambda n, t: torch.randn(n, 24), 24, 0),
    "CRNN": (CRNN, lambda n, t: torch.randn(n, 1, 32, t), 64, 96),
    "PackedClassifier": (PackedClassifier, _packed, 12, 9),
    "ConvLSTM": (ConvLSTM, lambda n, t: torch.randn(n, 3, 3, t, t), 16, 24),
    "Transformer": (Transformer, lambda n, t: (_words(n, t), _words(n, 7)), 12, 9),
    "NanoGPT": (NanoGPT, lambda n, t: _words(n, t), 12, 9),
    "Perceiver": (Perceiver, lambda n, t: torch.randn(n, t, 6), 12, 9),
    "TabNet": (TabNet, lambda n, t: torch.randn(n, 16), 16, 0),
    "DLRM": (DLRM, lambda n, t: (torch.randn(n, 8), [torch.randint(50, (n, 4)) for _ in range(3)]), 4, 0),
    "FTTransformer": (FTTransformer, lambda n, t: (torch.randn(n, 6), torch.randint(10, (n, 3))), 6, 0),
    "WideAndDeep": (WideAndDeep, lambda n, t: torch.randint(100, (n, 5)), 5, 0),
    "KAN": (KAN, lambda n, t: torch.randn(n, 8), 8, 0),
    "MixtureOfExperts": (MixtureOfExperts, lambda n, t: torch.randn(n, 10), 10, 0),
    "Siamese": (Siamese, lambda n, t: (torch.randn(n, 1, t, t), torch.randn(n, 1, t, t)), 28, 32),
    "GCN": (GCN, lambda n, t: (torch.randn(n, t, 7), _adjacency(n, t)), 9, 12),
    "GAT": (GAT, lambda n, t: {"nodes": torch.randn(n, t, 7), "adjacency": _adjacency(n, t)}, 9, 12),
    "PointNet": (PointNet, lambda n, t: torch.randn(n, 3, t), 40, 50),
    "UNet3D": (UNet3D, lambda n, t: torch.randn(n, 1, t, t, t), 16, 24),
    "UNet": (UNet, lambda n, t: torch.randn(n, 3, t, t), 34, 48),
    "Pix2Pix": (Pix2Pix, lambda n, t: torch.randn(n, 3, t, t), 32, 48),
    "DCGAN": (DCGAN, lambda n, t: torch.randn(n, 20), 20, 0),
    "Discriminator": (Discriminator, lambda n, t: torch.randn(n, 3, 32, 32), 32, 0),
    "StyleGAN": (StyleGAN, _levels, 16, 0),
    "VAE": (VAE, lambda n, t: torch.rand(n, 1, 28, 28), 28, 0),
    "RealNVP": (RealNVP, lambda n, t: torch.randn(n, 8), 8, 0),
    "ESPCN": (ESPCN, lambda n, t: torch.randn(n, 3, t, t), 24, 32),
    "YoloHead": (YoloHead, lambda n, t: torch.randn(n, 3, t, t), 64, 96),
    "SpatialTransformer": (SpatialTransformer, lambda n, t: torch.randn(n, 1, 28, 28), 28, 0),
    "SpectrogramNet": (SpectrogramNet, lambda n, t: torch.randn(n, t), 1024, 1280),
}
