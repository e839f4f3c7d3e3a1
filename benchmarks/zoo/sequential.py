"""Models of sequences, in plain torch: x [batch, extent, FEATURES] -> logits [batch, classes]."""

from torch import Tensor, nn

from benchmarks.zoo.entry import Scale

FEATURES = 12
CLASSES = 6


class Recurrent(nn.Module):
    """The last step of a recurrent layer stack, classified."""

    def __init__(self, layers: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(layers.hidden_size * (2 if layers.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, CLASSES]."""
        steps, _ = self.layers(x)
        logits: Tensor = self.head(steps[:, -1])
        return logits


def lstm(scale: Scale) -> nn.Module:
    """Hochreiter and Schmidhuber 1997."""
    return Recurrent(nn.LSTM(FEATURES, scale.width, scale.depth, batch_first=True))


def bilstm(scale: Scale) -> nn.Module:
    """LSTM layers that read in both directions."""
    return Recurrent(nn.LSTM(FEATURES, scale.width, scale.depth, batch_first=True, bidirectional=True))


def gru(scale: Scale) -> nn.Module:
    """Cho et al. 2014, arXiv:1406.1078."""
    return Recurrent(nn.GRU(FEATURES, scale.width, scale.depth, batch_first=True))


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over embedded features, averaged and classified."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, scale.width)
        layer = nn.TransformerEncoderLayer(scale.width, 4, 4 * scale.width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, scale.depth, enable_nested_tensor=False)
        self.head = nn.Linear(scale.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, CLASSES]."""
        logits: Tensor = self.head(self.layers(self.embed(x)).mean(1))
        return logits
