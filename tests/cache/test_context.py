"""Contexts against plain lists: thousands of random commits, forks, marks, rewinds and evictions."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from torch import Tensor

from tests.signalling import send
from worldsim.cache import context as context_module
from worldsim.cache import pool as pool_module
from worldsim.cache.context import Context
from worldsim.cache.policy import Sparse
from worldsim.cache.pool import PagePool, PageShape, Storage
from worldsim.cache.quant import Gear, PerToken
from worldsim.errors import ConfigError, PoolFull, SessionClosed, ShapeError

SHAPE = PageShape(layers=2, tokens=3, heads=1, head_dim=2)
PAGES = 9
MOST_PASTS = 5
INT8 = PerToken(form="int8")
GEAR = Gear(bits=4, rank=1, outliers=1)
CODING = Storage(code=INT8, recent=2)


def new_pool(pages: int = PAGES, storage: Storage | None = None) -> PagePool:
    return PagePool(SHAPE, pages=pages, dtype=torch.float32, device=torch.device("cpu"), storage=storage)


def content(seeds: list[int]) -> Tensor:
    """Random keys and values, one frame for each seed, [2, layers, len(seeds), tokens, heads, head_dim]."""
    size = (2, SHAPE.layers, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds], dim=2)


def contents(context: Context) -> Tensor:
    """What the pool holds for a context with frames, like `content`."""
    return torch.stack([torch.stack(context.pool.read(page)) for page in context.pages], dim=2)


def decoded(seeds: list[int]) -> Tensor:
    """The same, each frame as a pool that codes gives it back once it is old."""
    pages = [INT8.decode(INT8.encode(*content([seed])[:, :, 0]), SHAPE) for seed in seeds]
    return torch.stack([torch.stack(page) for page in pages], dim=2)


class Naive:
    """A past as a plain list of (frame, seed of its content), every fork a copy, and of which frames are old."""

    def __init__(self, frames: dict[int, int], next_frame: int, old: frozenset[int] = frozenset()) -> None:
        self.frames = dict(frames)
        self.next_frame = next_frame
        self.old = old & self.frames.keys()

    def copy(self) -> Naive:
        return Naive(self.frames, self.next_frame, self.old)

    def age(self, recent: int) -> None:
        self.old |= {frame for frame in self.frames if frame < self.next_frame - recent}
        self.old &= self.frames.keys()

    def content(self) -> Tensor:
        """What the pool is to hold for it, like `content`."""
        pages = [(decoded if frame in self.old else content)([seed]) for frame, seed in self.frames.items()]
        return torch.cat(pages, dim=2)

    def seeds(self, *, old: bool) -> set[int]:
        return {seed for frame, seed in self.frames.items() if (frame in self.old) == old}


class Sessions(RuleBasedStateMachine):
    """Several contexts on one small pool, each beside its naive double; marks are pairs of the same kind."""

    pick = st.integers(0, 10**6)
    storage: Storage | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = new_pool(storage=self.storage)
        self.recent = self.storage.recent if self.storage else 10**9
        self.pasts: list[tuple[Context, Naive]] = []
        self.marks: list[tuple[Context, Naive]] = []
        self.seeds = 0

    @property
    def everything(self) -> list[tuple[Context, Naive]]:
        return self.pasts + self.marks

    @property
    def most_held(self) -> int:
        """How many contents are held in the form of which there are more."""
        return max(
            len({seed for _, naive in self.everything for seed in naive.seeds(old=old)}) for old in (True, False)
        )

    @precondition(lambda self: len(self.pasts) < MOST_PASTS)
    @rule()
    def open(self) -> None:
        self.pasts.append((Context(self.pool), Naive({}, 0)))

    @precondition(lambda self: self.pasts)
    @rule(pick=pick, frames=st.integers(0, 3), blocks=st.integers(1, 4))
    def commit(self, pick: int, frames: int, blocks: int) -> None:
        for _ in range(blocks):
            self.append(*self.pasts[pick % len(self.pasts)], frames)

    def append(self, context: Context, naive: Naive, frames: int) -> None:
        seeds = list(range(self.seeds, self.seeds + frames))
        self.seeds += frames
        keys, values = content(seeds) if seeds else torch.empty(2, SHAPE.layers, 0, SHAPE.tokens, 1, SHAPE.head_dim)
        if self.most_held + frames > PAGES:
            with pytest.raises(PoolFull):
                context.append(keys, values)
        else:
            context.append(keys, values)
            naive.frames.update(zip(range(naive.next_frame, naive.next_frame + frames), seeds, strict=True))
            naive.next_frame += frames
            naive.age(self.recent)

    @precondition(lambda self: self.pasts)
    @rule(pick=pick, chosen=st.integers(0, 2**PAGES - 1))
    def keep(self, pick: int, chosen: int) -> None:
        context, naive = self.pasts[pick % len(self.pasts)]
        kept = [frame for at, frame in enumerate(naive.frames) if chosen >> at & 1]
        context.keep(kept)
        naive.frames = {frame: seed for frame, seed in naive.frames.items() if frame in kept}
        naive.old &= naive.frames.keys()

    @precondition(lambda self: self.pasts)
    @rule(pick=pick, back=st.integers(0, 6))
    def truncate(self, pick: int, back: int) -> None:
        context, naive = self.pasts[pick % len(self.pasts)]
        naive.next_frame = max(0, naive.next_frame - back)
        context.truncate(naive.next_frame)
        naive.frames = {frame: seed for frame, seed in naive.frames.items() if frame < naive.next_frame}
        naive.old &= naive.frames.keys()

    @precondition(lambda self: 0 < len(self.pasts) < MOST_PASTS)
    @rule(pick=pick)
    def fork(self, pick: int) -> None:
        context, naive = self.pasts[pick % len(self.pasts)]
        self.pasts.append((context.fork(), naive.copy()))

    @precondition(lambda self: self.pasts and len(self.marks) < MOST_PASTS)
    @rule(pick=pick)
    def mark(self, pick: int) -> None:
        context, naive = self.pasts[pick % len(self.pasts)]
        self.marks.append((context.fork(), naive.copy()))

    @precondition(lambda self: self.pasts and self.marks)
    @rule(pick=pick, mark=pick)
    def rewind(self, pick: int, mark: int) -> None:
        context, naive = self.marks[mark % len(self.marks)]
        self.pasts[pick % len(self.pasts)] = (context.fork(), naive.copy())

    @precondition(lambda self: self.pasts)
    @rule(pick=pick)
    def close(self, pick: int) -> None:
        context, _ = self.pasts.pop(pick % len(self.pasts))
        context.close()
        context.close()

    @precondition(lambda self: self.marks)
    @rule(pick=pick)
    def drop_a_mark_without_closing_it(self, pick: int) -> None:
        self.marks.pop(pick % len(self.marks))

    @invariant()
    def every_context_is_what_its_list_says(self) -> None:
        for context, naive in self.everything:
            assert context.frames == tuple(naive.frames)
            assert context.next_frame == naive.next_frame
            if naive.frames:
                assert torch.equal(contents(context), naive.content())

    @invariant()
    def the_books_balance(self) -> None:
        self.pool.check_integrity([context for context, _ in self.everything])
        assert self.pool.used == self.most_held


class CodingSessions(Sessions):
    """The same on a pool that keeps all but the newest two frames in fewer bits."""

    storage = CODING

    @precondition(lambda self: 0 < len(self.pasts) < MOST_PASTS)
    @rule(pick=st.integers(0, 10**6))
    def hold_elsewhere_what_one_holds(self, pick: int) -> None:
        context, naive = self.pasts[pick % len(self.pasts)]
        if not naive.frames or naive.old != {frame for frame in naive.frames if frame < naive.next_frame - 2}:
            return  # an empty one has no content; one that went back without a mark knows more than its frames tell
        seeds = range(self.seeds, self.seeds + len(naive.frames))
        if self.most_held + len(seeds) <= PAGES:
            again = Context(self.pool).hold(context.frames, context.next_frame, *contents(context))
            assert torch.equal(contents(again), contents(context))
            again.close()


@pytest.mark.parametrize("machine", [Sessions, CodingSessions])
def test_any_sequence_of_commits_forks_rewinds_and_evictions_equals_plain_lists(machine: type[Sessions]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault of the pool
        ),
    )


def filled(pool: PagePool, frames: int) -> Context:
    context = Context(pool)
    context.append(*content(list(range(frames))))
    return context


def test_a_fork_takes_no_page() -> None:
    pool = new_pool()
    context = filled(pool, 5)
    twin = context.fork()
    assert pool.used == 5
    assert twin.pages == context.pages


def test_a_mark_keeps_what_its_session_forgets() -> None:
    pool = new_pool()
    context = filled(pool, 5)
    mark = context.fork()
    context.keep([4])
    context.append(*content([7]))
    assert (context.frames, mark.frames) == ((4, 5), (0, 1, 2, 3, 4))
    again = mark.fork()
    assert again.next_frame == 5
    assert torch.equal(contents(again), content([0, 1, 2, 3, 4]))
    assert pool.used == 6


def test_a_context_that_is_dropped_gives_its_pages_back() -> None:
    pool = new_pool()
    context = filled(pool, 5)
    twin = context.fork()
    del context
    assert pool.used == 5
    del twin
    assert pool.used == 0


def test_a_dropped_context_in_a_cycle_gives_its_pages_back_when_it_is_collected() -> None:
    pool = new_pool()
    context = filled(pool, 5)
    context.itself = context  # type: ignore[attr-defined]
    del context
    gc.collect()
    assert pool.used == 0
    pool.check_integrity([])


def test_a_failed_append_changes_nothing() -> None:
    pool = new_pool(4)
    context = filled(pool, 3)
    with pytest.raises(PoolFull, match="2 more pages are wanted and 1 of 4 are free"):
        context.append(*content([7, 8]))
    for wrong in (content([7])[..., :1], content([7])[:, :1], content([7])[:, :, 0]):
        with pytest.raises(ShapeError, match="expected keys and values"):
            context.append(*wrong)
    assert (context.frames, context.next_frame, pool.used) == ((0, 1, 2), 3, 3)
    pool.check_integrity([context])


def test_only_held_frames_can_be_kept() -> None:
    context = filled(new_pool(), 4)
    context.keep([1, 3])
    with pytest.raises(ConfigError, match=r"frame 2 is not held; choose from \[1, 3\]"):
        context.keep([1, 2])
    assert context.frames == (1, 3)


def test_frames_are_numbered_on_after_a_truncation() -> None:
    context = filled(new_pool(), 4)
    context.keep([0, 3])
    context.truncate(2)
    assert (context.frames, context.next_frame) == ((0,), 2)
    context.append(*content([8]))
    assert context.frames == (0, 2)
    assert torch.equal(contents(context), content([0, 8]))


@pytest.mark.parametrize("recent", [0, 1, 3, 9])
def test_the_newest_frames_are_exact_and_those_before_them_as_their_code_gives_them(recent: int) -> None:
    context = Context(new_pool(storage=Storage(code=INT8, recent=recent)))
    for made in range(1, 7):
        context.append(*content([made]))
        old = max(0, made - recent)
        seeds = list(range(1, made + 1))
        expected = [*map(decoded, ([seed] for seed in seeds[:old])), *map(content, ([seed] for seed in seeds[old:]))]
        assert torch.equal(contents(context), torch.cat(expected, dim=2))


def test_a_past_is_the_same_whoever_else_holds_it_and_in_whichever_order_they_go_on() -> None:
    def lived(context: Context, seeds: list[int]) -> Tensor:
        for seed in seeds:
            context.append(*content([seed]))
        return contents(context)

    pool = new_pool(20, CODING)
    alone = lived(Context(pool), [1, 2, 3, 4, 5, 6])
    context = Context(pool)
    lived(context, [1, 2, 3])
    mark, fork = context.fork(), context.fork()
    assert torch.equal(lived(fork, [4, 5, 6]), alone)
    assert torch.equal(contents(context), contents(mark))
    del fork
    assert torch.equal(lived(context, [4, 5, 6]), alone)
    again = mark.fork()
    mark.close()
    assert torch.equal(lived(again, [4, 5, 6]), alone)
    pool.check_integrity([context, again])


def test_frames_that_are_passed_over_make_others_old() -> None:
    context = Context(new_pool(storage=CODING))
    context.append(*content([1, 2]))
    context.skip(1)
    context.append(*content([3]))
    assert context.frames == (0, 1, 3)
    assert torch.equal(contents(context), torch.cat((decoded([1, 2]), content([3])), dim=2))


def test_what_was_encoded_stays_so_when_a_context_goes_back_without_a_mark() -> None:
    context = Context(new_pool(storage=CODING))
    context.append(*content([1, 2, 3, 4, 5]))
    context.truncate(3)
    context.append(*content([6]))
    assert torch.equal(contents(context), torch.cat((decoded([1, 2, 3]), content([6])), dim=2))
    context.append(*content([7, 8]))
    assert torch.equal(contents(context), torch.cat((decoded([1, 2, 3, 6]), content([7, 8])), dim=2))


def test_a_batch_that_has_room_to_be_committed_has_room_to_make_as_much_old() -> None:
    pool = new_pool(6, CODING)
    contexts = [Context(pool), Context(pool)]
    for context, seed in zip(contexts, (10, 20), strict=True):
        for at in range(3):
            context.append(*content([seed + at]))
    marks = [context.fork() for context in contexts]
    while pool.free >= 2:
        for context in contexts:
            context.append(*content([1]))
    assert pool.free < 2
    pool.check_integrity([*contexts, *marks])


@pytest.mark.parametrize("code", [INT8, Gear(bits=4, rank=1, outliers=1)], ids=["int8", "gear4"])
def test_what_another_context_held_old_and_new_is_held_bit_for_bit(code: PerToken | Gear) -> None:
    pool = new_pool(20, Storage(code=code, recent=2))
    one = Context(pool)
    for seed in range(1, 7):
        one.append(*content([seed]))
    one.keep([0, 2, 3, 4, 5])
    keys, values = contents(one)
    other = Context(pool).hold(one.frames, one.next_frame, keys, values)
    assert torch.equal(contents(other), contents(one))
    for context in (one, other):
        context.append(*content([7, 8]))
    assert torch.equal(contents(other), contents(one))
    pool.check_integrity([one, other])


@pytest.mark.parametrize("frame", [-1, 5])
def test_a_context_cannot_go_back_to_a_frame_it_never_had(frame: int) -> None:
    context = filled(new_pool(), 4)
    with pytest.raises(ConfigError, match=f"cannot go back to frame {frame}; the past ends before frame 4"):
        context.truncate(frame)
    assert context.next_frame == 4


@pytest.mark.parametrize(
    "use",
    [
        lambda context: context.append(*content([1])),
        lambda context: context.keep([]),
        lambda context: context.truncate(0),
        lambda context: context.fork(),
        lambda context: context.frames,
    ],
)
def test_a_closed_context_refuses_to_be_used(use: Callable[[Context], object]) -> None:
    context = filled(new_pool(), 2)
    context.close()
    assert context.pages == ()
    with pytest.raises(SessionClosed, match="open a new one"):
        use(context)


def test_a_context_can_hold_what_another_one_held():
    pool = new_pool()
    one = Context(pool)
    one.append(*content([1, 2, 3, 4]))
    one.keep([1, 3])
    keys, values = contents(one)
    other = Context(pool).hold(one.frames, one.next_frame, keys, values)
    assert (other.frames, other.next_frame) == ((1, 3), 4)
    assert torch.equal(contents(other), contents(one))
    pool.check_integrity([one, other])
    other.append(*content([5]))
    assert other.frames == (1, 3, 4)


@pytest.mark.parametrize(
    ("frames", "next_frame"), [([1, 1], 4), ([3, 1], 4), ([1, 4], 4), ([-1, 0], 4), ([1], 4), ([0, 1, 2], 4)]
)
def test_pages_that_cannot_be_those_frames_are_refused_and_nothing_is_taken(frames, next_frame):
    pool = new_pool()
    with pytest.raises(ConfigError, match="give ascending numbers, one for each page"):
        Context(pool).hold(frames, next_frame, *content([1, 2]))
    assert pool.used == 0


def test_frames_can_be_numbered_on_from_some_that_nobody_holds():
    context = Context(new_pool())
    context.skip(7)
    context.append(*content([1, 2]))
    assert context.frames == (7, 8)
    with pytest.raises(ConfigError, match="skip 0 or more"):
        context.skip(-1)


SPARSE = Sparse(recent=2, run=2, tau=0.5)


def some_tokens(seed: int) -> Tensor:
    """Some of the tokens of a frame, at least one."""
    mask = torch.rand(SHAPE.tokens, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[seed % SHAPE.tokens] = True
    return mask.nonzero()[:, 0]


def commit(context: Context, seeds: list[int]) -> None:
    context.append(*content(seeds), [some_tokens(seed) for seed in seeds])


def check_holds(context: Context, frames: dict[int, int], *, whole_from: int) -> None:
    """Each frame is held whole from one on, and before it by its salient tokens."""
    assert context.frames == tuple(frames)
    for frame, seed in frames.items():
        keys, values, tokens = context.read(frame)
        assert torch.equal(context.salient(frame), some_tokens(seed))
        if frame >= whole_from:
            assert tokens is None
            assert torch.equal(torch.stack((keys, values)), content([seed])[:, :, 0])
        else:
            assert tokens is not None
            assert torch.equal(tokens, some_tokens(seed))
            assert torch.equal(torch.stack((keys, values)), content([seed])[:, :, 0, tokens])


@given(st.lists(st.sampled_from(["one", "three", "fork", "back", "forget"]), max_size=25), st.integers(0, 2**16))
def test_a_sparse_past_is_whole_where_it_is_recent_and_salient_where_it_is_old(steps: list[str], seed: int) -> None:
    pool = new_pool(200)
    pasts: list[tuple[Context, dict[int, int], int]] = [(Context(pool, SPARSE), {}, 0)]
    for number, step in enumerate(steps):
        context, frames, packed = pasts[-1]
        if step in ("one", "three"):
            seeds = [seed + 10 * number + at for at in range(1 if step == "one" else 3)]
            first = context.next_frame
            commit(context, seeds)
            frames |= {first + at: each for at, each in enumerate(seeds)}
        elif step == "fork":
            pasts.append((context.fork(), dict(frames), packed))
        elif step == "back":
            context.truncate(context.next_frame - min(1, context.next_frame))
            frames.pop(context.next_frame, None)
            packed = min(packed, context.next_frame)
        else:
            context.keep([frame for frame in context.frames if frame != seed % 7])
            frames.pop(seed % 7, None)
        context, frames, _ = pasts[-1]
        pasts[-1] = (context, frames, max(packed, SPARSE.old(context.next_frame)))
    for context, frames, packed in pasts:
        check_holds(context, frames, whole_from=packed)
    pool.check_integrity([context for context, _, _ in pasts])


def test_the_frames_of_an_old_run_share_pages() -> None:
    pool = new_pool()
    context = Context(pool, Sparse(recent=1, run=3, tau=0.5))
    for seed in range(4):
        context.append(*content([seed]), [torch.tensor([seed % SHAPE.tokens])])
    assert len(set(context.pages[:3])) == 1
    assert pool.used == 2
    context.keep([1, 3])
    assert pool.used == 2
    context.keep([3])
    assert pool.used == 1
    pool.check_integrity([context])


@pytest.mark.parametrize("storage", [None, CODING, *(Storage(code=GEAR, recent=recent) for recent in (0, 1, 2, 3, 5))])
@pytest.mark.parametrize("frames", range(5, 13))
def test_a_sparse_past_is_held_bit_for_bit_by_another_context(storage: Storage | None, frames: int) -> None:
    pool = new_pool(40, storage)
    one = Context(pool, SPARSE)
    for seed in range(frames):
        commit(one, [seed])
    spread = [one.spread(frame) for frame in one.frames]
    keys, values = (torch.stack(side, dim=1) for side in zip(*spread, strict=True))
    other = Context(pool, SPARSE).hold(one.frames, frames, keys, values, [one.salient(frame) for frame in one.frames])
    for seed in range(frames, frames + 6):
        for context in (one, other):
            commit(context, [seed])
    for frame in one.frames:
        for ours, theirs in zip(one.spread(frame), other.spread(frame), strict=True):
            assert torch.equal(ours, theirs)
    pool.check_integrity([one, other])


def test_what_another_context_held_sparsely_takes_no_more_room_here() -> None:
    pool = new_pool(60)
    one = Context(pool, SPARSE)
    for seed in range(30):
        commit(one, [seed])
    held = pool.used
    keys, values = (torch.stack(side, dim=1) for side in zip(*map(one.spread, one.frames), strict=True))
    tight = new_pool(held)
    other = Context(tight, SPARSE).hold(one.frames, 30, keys, values, [one.salient(frame) for frame in one.frames])
    assert tight.used == held < 30
    tight.check_integrity([other])
    with pytest.raises(PoolFull):
        Context(new_pool(held - 1), SPARSE).hold(
            one.frames, 30, keys, values, [one.salient(frame) for frame in one.frames]
        )


def test_frames_without_salient_tokens_are_refused_by_a_sparse_context_and_others_with_them() -> None:
    pool = new_pool()
    with pytest.raises(ShapeError, match="2 frames came with salient tokens of 0; a sparse context takes some of each"):
        Context(pool, SPARSE).append(*content([1, 2]))
    with pytest.raises(ShapeError, match="1 frames came with salient tokens of 1"):
        Context(pool, SPARSE).append(*content([1]), [torch.empty(0, dtype=torch.int64)])
    with pytest.raises(ShapeError, match="another takes none"):
        Context(pool).append(*content([1]), [torch.tensor([0])])
    assert pool.used == 0


def test_a_sparse_context_commits_nothing_where_there_is_no_room_to_pack() -> None:
    pool = new_pool(5)
    context = Context(pool, Sparse(recent=1, run=2, tau=0.5))
    commit(context, [1, 2])
    mark = context.fork()
    with pytest.raises(PoolFull):
        commit(context, [3, 4])
    assert context.frames == (0, 1)
    pool.check_integrity([context, mark])


def interrupted(call: Callable[[], object], at: int) -> bool:
    """Call, and press Ctrl-C before that line of contexts and pools that runs then; whether there are so many."""
    lines = count()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in {context_module.__file__, pool_module.__file__}:
            return None
        if event == "line" and next(lines) == at:
            send(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    assert next(lines) <= at, "it was heard"
    return False


def another(context: Context) -> Context:
    """A new context that holds the same."""
    read = [context.spread(frame) for frame in context.frames]
    keys, values = (torch.stack(side, dim=1) for side in zip(*read, strict=True))
    salient = [context.salient(frame) for frame in context.frames]
    return Context(context.pool, SPARSE).hold(context.frames, context.next_frame, keys, values, salient)


@pytest.mark.parametrize(
    "call",
    [
        lambda context: commit(context, [8, 9]),
        another,
        lambda context: context.keep(context.frames[1:]),
        lambda context: context.skip(3),
        lambda context: context.truncate(context.next_frame - 2),
        lambda context: context.fork(),
        lambda context: context.fork().pool.used,
        lambda context: context.close(),
    ],
    ids=["append", "hold", "keep", "skip", "truncate", "fork", "drop", "close"],
)
def test_ctrl_c_at_any_line_leaves_no_page_to_nobody(call: Callable[[Context], object]) -> None:
    at = 0
    while True:
        pool = new_pool(40, CODING)
        context = Context(pool, SPARSE)
        commit(context, [*range(7)])
        if not interrupted(partial(call, context), at):
            break
        pool.check_integrity([context])
        at += 1
    assert at


def test_no_line_of_python_runs_when_a_context_is_dropped() -> None:
    pool = new_pool()
    context, ran = filled(pool, 5), list[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            ran.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    del context
    sys.setprofile(before)
    assert not ran, "Ctrl-C would raise there, and nobody would hear of it"
    assert pool.used == 0
