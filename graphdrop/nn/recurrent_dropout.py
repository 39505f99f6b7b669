"""All that dropout can be in a recurrent layer, as one argument.

dropout = nn.RecurrentDropout(stream, training, inputs=0.5, outputs=0.5)         # Zaremba 2014
dropout = nn.RecurrentDropout(stream, training, inputs=0.3, state=0.3, variational=True)  # Gal
lstm = nn.LSTM(128, 256, rng, layers=2, dropout=dropout)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..dropout import dropout, rate_node, rate_threshold
from ..errors import ArgumentError
from ..graph import Node
from ..ops import random as draws
from ..ops.elementwise import cast, where
from ..random import RandomStream, threshold_of, training_flag
from ..scan import map as scan_map
from ..types import Shape


@dataclass(frozen=True, eq=False)
class RecurrentDropout:
    """What is dropped in a recurrent layer; rates are numbers in [0, 1] or symbolic scalars.

    stream, training  as for `gd.dropout`
    inputs   of the first layer, between  inputs of the layers above it, outputs  of the last layer:
             together the regularized LSTM of Zaremba et al. 2014
    state    the hidden state where it enters the recurrent product
    update   what a step adds to the memory: "without memory loss" (Semeniuta et al. 2016); in
             LSTMs and GRUs
    zoneout  the share of the state that keeps its old value (Krueger et al. 2017); for an LSTM also
             (rate of h, rate of c).  While not training the state is the expectation over masks
    weights  DropConnect on the recurrent weights, one mask a call (Merity et al. 2018)
    variational  one mask for all steps of a sequence instead of one for each (Gal and Ghahramani
             2016)
    example  integer ids, one for every row of the batch: masks of a row depend on its id only
    name     fixes the draws' sites, "<name>.inputs", "<name>.state" and so on, with the layer's
             number where there are several and ".back" for the backward direction
    """

    stream: RandomStream
    training: Any = True
    inputs: Any = 0.0
    between: Any = 0.0
    outputs: Any = 0.0
    state: Any = 0.0
    update: Any = 0.0
    zoneout: Any = 0.0
    weights: Any = 0.0
    variational: bool = False
    example: Any = None
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stream, RandomStream):
            raise ArgumentError(f"needs a gd.RandomStream to draw from, got {self.stream!r}")
        training_flag(self.training)
        for field in fields(self):
            if field.name in RATES:
                rates = getattr(self, field.name)
                for rate in rates if isinstance(rates, tuple) else (rates,):
                    if isinstance(rate, (int, float)):
                        threshold_of(rate)

    def of_sequence(self, x: Node, which: str, place: str = "") -> Node:
        """x of shape (time, batch, size) dropped at the rate called `which`."""
        rate = getattr(self, which)
        if off(rate):
            return x
        name = self._named(which + place)
        if self.example is None:
            return dropout(
                x, rate, self.stream, self.training, axes=0 if self.variational else None, name=name
            )
        if self.variational:
            keep = self.keeps(rate, x.shape[1:], name)
            return dropout(x, rate, self.stream, self.training, mask=keep)
        found: Node = scan_map(
            lambda row: dropout(
                row, rate, self.stream, self.training, name=name, example=self.example
            ),
            x,
        )
        return found

    def of_weights(self, weights: Node, label: str) -> Node:
        """The recurrent weights with DropConnect."""
        if off(self.weights):
            return weights
        name = self._named("weights" + label)
        return dropout(weights, self.weights, self.stream, self.training, name=name)

    def keeps(self, rate: Any, shape: Shape, name: str | None) -> Node:
        """A mask, True with probability 1 - rate, and everywhere while not training."""
        threshold, flag = rate_threshold(rate), training_flag(self.training)
        return self.stream.draw(
            draws.mask, threshold, training=flag, shape=shape, name=name, example=self.example
        )

    def _named(self, part: str) -> str | None:
        return None if self.name is None else f"{self.name}.{part}"


RATES = ("inputs", "between", "outputs", "state", "update", "zoneout", "weights")


def off(rate: Any) -> bool:
    """Whether a rate is the number 0: nothing is to be drawn, and no site taken."""
    return isinstance(rate, (int, float)) and rate == 0


class StepNoise:
    """The masks inside the loop of one layer and direction.

    label  what tells its sites from those of other layers
    shape  of the state, (batch, units)

    Masks that all steps share are drawn when this is made, outside the loop; the others in the step
    that asks for them.
    """

    def __init__(self, choice: RecurrentDropout | None, label: str, shape: Shape) -> None:
        self.choice, self.label, self.shape = choice, label, shape
        self._shared: dict[str, Node] = {}
        if choice is None:
            return
        zone = choice.zoneout
        self._zones = zone if isinstance(zone, tuple) else (zone, zone)
        if choice.variational:
            rates = {"state": choice.state, "update": choice.update}
            rates |= dict(zip(("zoneout_h", "zoneout_c"), self._zones, strict=True))
            for which, rate in rates.items():
                if not off(rate):
                    self._shared[which] = choice.keeps(rate, shape, self._name(which))

    def state(self, h: Node) -> Node:
        """The hidden state as the recurrent product sees it."""
        return self._dropped(h, "state")

    def update(self, new: Node) -> Node:
        """What is added to the memory."""
        return self._dropped(new, "update")

    def _dropped(self, x: Node, which: str) -> Node:
        choice = self.choice
        if choice is None or off(rate := getattr(choice, which)):
            return x
        if which in self._shared:
            return dropout(x, rate, choice.stream, choice.training, mask=self._shared[which])
        return dropout(
            x, rate, choice.stream, choice.training, name=self._name(which), example=choice.example
        )

    def zoned(self, new: Node, old: Node, which: str) -> Node:
        """The state "h" or "c" after a step, some of which keeps its old value."""
        choice = self.choice
        if choice is None or off(rate := self._zones["hc".index(which)]):
            return new
        key = f"zoneout_{which}"
        keep = self._shared.get(key)
        if keep is None:
            keep = choice.keeps(rate, self.shape, self._name(key))
        share = cast(rate_node(rate), new.dtype)
        expected = share * old + (1 - share) * new
        return where(training_flag(choice.training), where(keep, new, old), expected)

    def _name(self, which: str) -> str | None:
        assert self.choice is not None
        return self.choice._named(which + self.label)


def check_choice(choice: Any, units: str, updates: bool, parts: int) -> None:
    """ArgumentError if a layer of this kind cannot do what is asked."""
    if choice is None:
        return
    if not isinstance(choice, RecurrentDropout):
        raise ArgumentError(f"dropout is an nn.RecurrentDropout, got {choice!r}")
    if not updates and not off(choice.update):
        raise ArgumentError(
            f"{units} has no gates, so a step adds nothing to a memory: update= is for LSTM and GRU"
        )
    if isinstance(choice.zoneout, tuple) and (parts != 2 or len(choice.zoneout) != 2):
        raise ArgumentError(f"zoneout is one rate, or for an LSTM two, got {choice.zoneout!r}")
