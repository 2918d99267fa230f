"""Exact flat search with torch, on a GPU or any other torch device: the results of the CPU, bit for bit.

Vectors stay on the device as far as a share of its free memory allows; the rest is copied block by block for every
search. A product of matrices proposes candidates, in true float32 (not TF32, for which the bound does not hold) or in
bfloat16 with a bound from the rounding of these very vectors. The scores that count are sums in float64 on the device;
a sum that lies so near to the middle of two float32 numbers that its order of summing could decide is taken from the
CPU's own routine.

Q queries, N vectors of a block, M candidates, W width of a vector, K hits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.retrieval._dense_exact import Floats, Rows, Scores, bound_of_lengths, pair_scores

if TYPE_CHECKING:
    import torch

_BLOCK = 1 << 18  # vectors compared at a time
_PAIRS = 1 << 25  # elements of candidates' vectors in float64 at a time: 256 MiB
_MARGIN = 16
_NO_ROW = np.iinfo(np.int64).max


def torch_device(name: str) -> torch.device:
    """Return a torch device that works here, or say why it does not."""
    torch = require("torch", "dense")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={name!r} cannot be used here: {str(error).splitlines()[0]}; use device='cpu'"
        ) from error
    return device


class DeviceVectors:
    """The vectors of an index on a torch device, in store order.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, W)
        May be mapped from disk.
    longest : float
        A length that no vector exceeds.
    metric : {"inner_product", "l2"}
    device : str
    dtype : {"float32", "bfloat16"}
        What proposes candidates.
    share : float
        Of the device's memory that is free, for vectors that stay there: several indexes leave each other room.
    """

    def __init__(
        self,
        vectors: Floats,
        longest: float,
        *,
        metric: str,
        device: str,
        dtype: str = "float32",
        share: float = 0.5,
    ) -> None:
        torch = self.torch = require("torch", "dense")
        self.device, self.metric, self.longest = torch_device(device), metric, longest
        self.vectors, self.dtype = vectors, getattr(torch, dtype)
        width = vectors.shape[1] * torch.finfo(self.dtype).bits // 8 + 4
        room = self._memory() * share
        self.n_resident = int(min(len(vectors), room // width))
        both = self.n_resident * (width + 4 * vectors.shape[1]) <= room
        self.resident_NW, self.squares_N, self.rounding = self._load(0, self.n_resident)
        self.exact_NW = self.resident_NW
        if self.dtype != torch.float32:
            self.exact_NW = self._copied(0, self.n_resident) if both else None

    def _memory(self) -> float:
        if self.device.type != "cuda":
            return 2.0**62  # the vectors are in this memory already
        return float(self.torch.cuda.mem_get_info(self.device)[0])

    def search(
        self, queries: Floats, k: int, counts: Sequence[int], *, is_open: Any = None
    ) -> list[tuple[Rows, Scores]]:
        """Return the exact k best over the first ``n`` vectors for each n of increasing counts.

        Parameters
        ----------
        queries : ndarray of float32, shape (Q, W)
        k : int
        counts : sequence of int
            Sizes of the stores, in vectors.
        is_open : ndarray of bool, shape (Q,), optional
            Which queries are searched at all; the others get whatever comes first.

        Returns
        -------
        list of (rows, scores), each (Q, k)
            Ordered by score, then row; -1 and -inf pad.
        """
        torch = self.torch
        queries_QW = torch.from_numpy(np.array(queries, dtype=np.float32)).to(self.device)
        wanted = torch.ones(len(queries), dtype=torch.bool) if is_open is None else torch.from_numpy(np.array(is_open))
        best = (
            torch.full((len(queries), k), _NO_ROW, dtype=torch.long, device=self.device),
            torch.full((len(queries), k), float("-inf"), device=self.device),
        )
        answers = []
        with self._true_float32(), torch.inference_mode():
            for start, stop in zip([0, *counts[:-1]], counts, strict=True):
                for left, right in self._blocks(start, stop):
                    best = self._with_block(queries_QW, wanted.to(self.device), best, left, right)
                rows_QK, scores_QK = best[0].cpu().numpy().copy(), best[1].cpu().numpy().copy()
                rows_QK[rows_QK == _NO_ROW] = -1
                answers.append((rows_QK, scores_QK))
        return answers

    # One block

    def _with_block(
        self, queries_QW: Any, wanted_Q: Any, best: tuple[Any, Any], left: int, right: int
    ) -> tuple[Any, Any]:
        """Merge the best of a block into the best so far, and prove that nothing is missed."""
        torch, k = self.torch, best[0].shape[1]
        scores_QN, slack_Q = self._proposed(queries_QW, left, right)
        n = right - left
        rows_QK, counted_QK = best
        open_Q, m = torch.arange(len(queries_QW), device=self.device), min(k + _MARGIN, n)
        while len(open_Q):
            some = len(open_Q) < len(queries_QW)
            found_QM, place_QM = (scores_QN[open_Q] if some else scores_QN).topk(m, dim=1)
            place_QM += left
            merged = (
                torch.cat((best[0][open_Q], place_QM), 1),
                torch.cat((best[1][open_Q], self._counted(queries_QW, open_Q, place_QM)), 1),
            )
            rows, counted = self._ordered(*merged, k)
            if not some:
                rows_QK, counted_QK = rows, counted
            else:
                rows_QK, counted_QK = rows_QK.index_copy(0, open_Q, rows), counted_QK.index_copy(0, open_Q, counted)
            if m == n:
                break
            # nothing unseen scores above the last proposal by more than the slack: done where that is below the k-th
            reach_Q = found_QM[:, -1].double() + slack_Q[open_Q]
            open_Q = open_Q[(reach_Q >= counted[:, -1]) & wanted_Q[open_Q]]
            m = min(4 * m, n)
        return rows_QK, counted_QK

    def propose(self, queries: Floats, start: int, stop: int, m: int) -> tuple[Rows, Scores, np.ndarray]:
        """Return rows and proposed scores of the m best of a run, and how far a score may be from the one that counts.

        For one block; `search` uses it on the device.
        """
        torch = self.torch
        with self._true_float32(), torch.inference_mode():
            given = torch.from_numpy(np.array(queries, dtype=np.float32)).to(self.device)
            scores_QN, slack_Q = self._proposed(given, start, stop)
            found, rows = scores_QN.topk(min(m, stop - start), dim=1)
        return (rows + start).cpu().numpy(), found.cpu().numpy(), slack_Q.cpu().numpy()

    def _proposed(self, queries_QW: Any, left: int, right: int) -> tuple[Any, Any]:
        """Return proposed scores of a block, (Q, N) in float32, and the bound on their errors (Q,)."""
        torch = self.torch
        if right <= self.n_resident:
            part_NW, squares_N, rounding = self.resident_NW[left:right], self.squares_N[left:right], self.rounding
        else:
            part_NW, squares_N, rounding = self._load(left, right)
        narrow_QW = queries_QW.to(self.dtype)
        if self.dtype == torch.float32:
            scores_QN = narrow_QW @ part_NW.T
        elif self.device.type == "cuda":
            scores_QN = torch.mm(narrow_QW, part_NW.T, out_dtype=torch.float32)
        else:
            scores_QN = narrow_QW.float() @ part_NW.float().T
        wide_QW = queries_QW.double()
        length_Q = wide_QW.norm(dim=1)
        off_Q = (wide_QW - narrow_QW.double()).norm(dim=1)
        moved_Q = length_Q * rounding + off_Q * (self.longest + rounding)
        if self.metric == "l2":
            scores_QN.mul_(2).sub_(squares_N).sub_(queries_QW.square().sum(1, keepdim=True))
            moved_Q = 2 * moved_Q
        bound_Q = bound_of_lengths(length_Q, queries_QW.shape[1], self.longest + rounding, self.metric)
        return scores_QN, moved_Q * (1 + 1e-6) + bound_Q

    def _counted(self, queries_QW: Any, which_Q: Any, rows_QM: Any) -> Any:
        """Return the scores that count, (Q, M) in float32."""
        torch, width = self.torch, queries_QW.shape[1]
        counted = torch.empty(rows_QM.shape, device=self.device)
        step = max(1, _PAIRS // (rows_QM.shape[1] * width))
        for start in range(0, len(which_Q), step):
            rows, some = rows_QM[start : start + step], queries_QW[which_Q[start : start + step]]
            wide_QMW, query_Q1W = self._fetch(rows).double(), some.double()[:, None]
            length_Q1 = query_Q1W.norm(dim=2)
            unit = 2 * (width + 8) * 2.0**-53  # for both orders of summing, this and the CPU's
            if self.metric == "l2":
                sums = 0.0 - (wide_QMW - query_Q1W).square_().sum(-1)
                error = 2 * unit * (length_Q1 + self.longest) ** 2
            else:
                sums = (wide_QMW.mul_(query_Q1W)).sum(-1)
                error = unit * length_Q1 * self.longest
            part = (sums + 0.0).float() + 0.0
            unsure = (sums - error).float() != (sums + error).float()
            if unsure.any():
                query, column = (place.cpu().numpy() for place in unsure.nonzero(as_tuple=True))
                row = rows.cpu().numpy()[query, column]
                exact = pair_scores(some.cpu().numpy()[query], np.asarray(self.vectors[row]), self.metric)
                part[unsure] = torch.from_numpy(exact).to(self.device)
            counted[start : start + step] = part
        return counted

    def _fetch(self, rows_QM: Any) -> Any:
        """Return the float32 vectors of rows, from the device where they all are there."""
        if self.exact_NW is not None and self.n_resident == len(self.vectors):
            return self.exact_NW[rows_QM]
        rows = rows_QM.cpu().numpy()
        return self.torch.from_numpy(np.array(self.vectors[rows.ravel()])).view(*rows.shape, -1).to(self.device)

    def _ordered(self, rows: Any, scores: Any, k: int) -> tuple[Any, Any]:
        """Return the first k columns in order of falling score, then rising row."""
        rows, order = rows.sort(dim=1, stable=True)
        scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        return rows.gather(1, order[:, :k]), scores[:, :k]

    # Memory

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut a run into blocks, none of which is partly on the device and partly not."""
        while start < stop:
            end = min(start + _BLOCK, stop, self.n_resident if start < self.n_resident else stop)
            yield start, end
            start = end

    def _load(self, left: int, right: int) -> tuple[Any, Any, float]:
        """Return vectors on the device in ``dtype``, the squares of their lengths, and how far rounding moved one."""
        torch = self.torch
        n, width = right - left, self.vectors.shape[1]
        held_NW = torch.empty(n, width, dtype=self.dtype, device=self.device)
        squares_N = torch.empty(n, device=self.device)
        rounding = 0.0
        for start in range(0, n, _BLOCK):
            block = self._copied(left + start, left + min(start + _BLOCK, n))
            part = slice(start, start + len(block))
            held_NW[part], squares_N[part] = block.to(self.dtype), block.square().sum(1)
            if self.dtype != torch.float32:
                rounding = max(rounding, float((block.double() - held_NW[part].double()).norm(dim=1).max()))
        return held_NW, squares_N, rounding

    def _copied(self, left: int, right: int) -> Any:
        return self.torch.from_numpy(np.array(self.vectors[left:right])).to(self.device)

    @contextlib.contextmanager
    def _true_float32(self) -> Generator[None]:
        matmul = self.torch.backends.cuda.matmul
        try:
            name, wanted, before = "allow_tf32", False, matmul.allow_tf32
        except RuntimeError:  # torch refuses the old setting once the user has made the new one
            name, wanted, before = "fp32_precision", "ieee", matmul.fp32_precision
        setattr(matmul, name, wanted)
        try:
            yield
        finally:
            setattr(matmul, name, before)
