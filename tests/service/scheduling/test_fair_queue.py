"""The order of the line, by hand and at random against rules that are checked from outside."""

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import pytest

from service.scheduling.fair_queue import BACKGROUND, Entry, FairQueue, Taken

A, B, C = (8, 8, 3), (16, 16, 3), (8, 16, 3)


@dataclass(eq=False, slots=True)
class Image(Entry):
    """An entry with a name and a number of arrival."""

    name: str
    number: int


class Line:
    """A line with a clock that stands still, and batches by name."""

    def __init__(self, most: int = 1, budget: float = math.inf) -> None:
        self.queue: FairQueue[Image] = FairQueue()
        self.now = 0.0
        self.most, self.budget = most, budget
        self.number = 0

    def add(
        self, name: str, group: Hashable = A, priority: float = 0, deadline: float = math.inf, cost: float = 0
    ) -> Image:
        """A name's first letter is its key."""
        self.number += 1
        image = Image(name[0], group, self.now - priority, deadline, cost, name, self.number)
        self.queue.add(image)
        return image

    def take(self) -> list[str]:
        return [image.name for image in self.taken().batch]

    def taken(self) -> Taken[Image]:
        return self.queue.take(self.now, self.most, self.budget)

    def all(self) -> list[list[str]]:
        batches = []
        while batch := self.take():
            batches.append(batch)
        return batches


def test_first_in_first_out_between_equals() -> None:
    line = Line(most=2)
    for i in range(5):
        line.add(f"a{i}")
    assert line.all() == [["a0", "a1"], ["a2", "a3"], ["a4"]]
    assert line.take() == []


def test_a_flood_delays_another_key_by_one_batch() -> None:
    line = Line(most=4)
    for i in range(100):
        line.add(f"a{i}")
    assert line.take() == ["a0", "a1", "a2", "a3"]
    line.add("b0")
    assert "b0" in line.take()


def test_a_flood_does_not_profit_from_coming_back() -> None:
    """One that always has one image waiting gets every second turn beside a flood, not less."""
    line = Line()
    for i in range(20):
        line.add(f"a{i}")
    line.add("b0")
    served = ""
    for i in range(1, 9):
        batch = line.take()
        served += batch[0][0]
        if batch[0][0] == "b":
            line.add(f"b{i}")
    assert served == "abababab"


def test_each_key_has_its_share_of_a_batch() -> None:
    line = Line(most=6)
    for key in "abc":
        for i in range(10):
            line.add(f"{key}{i}")
    assert line.take() == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_who_goes_along_has_had_a_turn() -> None:
    """Ten keys that flood: each waits for the others once, not for one batch each."""
    line = Line(most=4)
    for i in range(3):
        for key in "abcdefghij":
            line.add(f"{key}{i}")
    assert line.take() == ["a0", "b0", "c0", "d0"]
    line.add("k0")
    assert line.take() == ["e0", "f0", "g0", "h0"]
    assert line.take() == ["i0", "j0", "k0", "a1"]
    line.add("k1")  # it comes back at once, and has had its turn
    assert line.take() == ["b1", "c1", "d1", "e1"]
    assert line.take() == ["f1", "g1", "h1", "i1"]
    assert line.take() == ["j1", "k1", "a2", "b2"]


def test_who_comes_beside_a_flood_leads_next() -> None:
    line = Line()
    for i in range(20):
        line.add(f"a{i}")
    assert line.take() + line.take() == ["a0", "a1"]
    line.add("b0")
    line.add("c0")
    assert [line.take() for _ in range(4)] == [["b0"], ["c0"], ["a2"], ["a3"]]
    line.add("b1")
    assert [line.take() for _ in range(2)] == [["b1"], ["a4"]]


def test_a_step_of_priority_outweighs_a_second_of_waiting_in_the_same_key() -> None:
    line = Line()
    line.add("a0")
    line.now = 0.5
    line.add("a1", priority=1)
    line.add("a2", priority=-1)
    line.now = 2.0
    line.add("a3", priority=1)
    line.add("b0", priority=9)
    assert line.all() == [["a1"], ["b0"], ["a0"], ["a3"], ["a2"]]


def test_nobody_starves_under_a_flood_of_higher_priority() -> None:
    """One image of priority 0 against a stream at priority 5 that alone would fill the network."""
    line = Line()
    line.add("a-low")
    for tick in range(100):
        line.now = tick / 10
        line.add(f"a{tick}", priority=5)
        if line.take() == ["a-low"]:
            break
    assert line.now == pytest.approx(5.0, abs=0.2)


def test_the_first_in_line_leads_and_its_shape_goes_along() -> None:
    line = Line(most=4)
    for name, shape in {"a1": A, "a2": B, "a3": A, "a4": B, "a5": C}.items():
        line.add(name, shape)
    assert line.all() == [["a1", "a3"], ["a2", "a4"], ["a5"]]


def test_a_batch_keeps_to_its_budget_and_a_first_one_is_never_too_dear() -> None:
    line = Line(most=8, budget=10)
    for name, cost in {"a1": 4, "b1": 5, "a2": 4, "b2": 1, "a3": 30, "a4": 1}.items():
        line.add(name, cost=cost)
    assert line.all() == [["a1", "b1", "b2"], ["a2"], ["a3"], ["a4"]]


def test_another_shape_waits_for_those_ahead_of_it_and_nobody_else() -> None:
    """However many of a common shape keep coming, the odd one leads when all who came before it are gone."""
    line = Line(most=2)
    line.add("a0")
    line.add("a1")
    line.add("a2")
    line.add("a-odd", B)
    taken = []
    for i in range(3, 9):
        line.add(f"a{i}")
        line.add(f"a{i}'")
        taken.append(line.take())
    assert taken[:3] == [["a0", "a1"], ["a2", "a3"], ["a-odd"]]


def test_who_gets_ahead_of_its_own_first_keeps_its_turn() -> None:
    """b's image of the flood's shape goes along with the flood; its first image leads next all the same."""
    line = Line(most=4)
    for i in range(20):
        line.add(f"a{i}")
    line.add("b-first", B)
    for i in range(20):
        line.add(f"b{i}")
    assert line.take() == ["a0", "b0", "a1", "b1"]
    assert line.take() == ["b-first"]


def test_who_withdraws_is_never_taken() -> None:
    line = Line(most=8)
    images = [line.add(f"a{i}") for i in range(4)]
    assert line.queue.withdraw(images[1])
    assert not line.queue.withdraw(images[1])
    assert line.queue.waiting == 3
    assert line.take() == ["a0", "a2", "a3"]
    assert not line.queue.withdraw(images[0])
    assert line.queue.waiting == 0


def test_who_is_late_comes_out_and_costs_nobody_a_turn() -> None:
    line = Line(most=2)
    line.add("a0", deadline=1.0)
    line.add("a1", deadline=1.5)
    line.add("a2", deadline=1.0)
    line.add("a3")
    line.now = 1.0
    batch, late = line.taken()
    assert [image.name for image in batch] == ["a1", "a3"]
    assert [image.name for image in late] == ["a0", "a2"]
    assert line.queue.waiting == 0
    line.add("b0", deadline=0.5)
    assert [image.name for image in line.taken().late] == ["b0"]
    assert line.taken() == ([], [])


def test_withdrawn_entries_do_not_pile_up() -> None:
    line = Line()
    line.add("a-first")
    for i in range(10_000):
        line.queue.withdraw(line.add(f"a{i}", (A, B, C)[i % 3]))
        line.queue.withdraw(line.add(f"b{i}"))
    assert entries(line.queue) < 100
    assert len(line.queue._queues) == 1
    assert line.all() == [["a-first"]]


def test_those_ahead_are_counted_low_never_high() -> None:
    line = Line()
    for i in range(5):
        line.add(f"a{i}", A if i % 2 else B)
    for i in range(2):
        line.add(f"b{i}")
    assert line.queue.ahead("c", 0.0, None) == 0  # leads no later than after one each of the others
    assert line.queue.ahead("b", 0.0, None) == 2 + 2
    assert line.queue.ahead("a", 0.0, None) == 5 + 2
    assert line.queue.ahead("a", -1.0, None) == 0
    assert line.queue.ahead("a", 0.0, A) == 2
    assert line.queue.ahead("a", 0.0, C) == 0


def test_cleared_it_is_empty_and_gives_back_who_waited() -> None:
    line = Line()
    images = [line.add(name) for name in ("a0", "a1", "b0")]
    line.queue.withdraw(images[1])
    assert {image.name for image in line.queue.clear()} == {"a0", "b0"}
    assert (line.queue.waiting, line.take()) == (0, [])
    assert not line.queue.withdraw(images[0])


def entries(queue: FairQueue[Image]) -> int:
    return sum(len(heap) for lane in queue._queues.values() for heap in lane.heaps.values())


@pytest.mark.parametrize("seed", range(40))
def test_the_rules_hold_whatever_comes(seed: int) -> None:
    """Arrivals, shapes, keys, priorities, deadlines and withdrawals at random, judged after every batch."""
    chance = random.Random(seed)
    line = Line(most=chance.choice([1, 2, 4, 16]))
    keys = "abcde"[: chance.randint(1, 5)]
    waiting: set[Image] = set()
    passed = dict.fromkeys(keys, 0)
    fate: Counter[Image] = Counter()
    for _ in range(400):
        line.now += chance.random() * 0.3
        for _ in range(chance.choice([0, 1, 2, 5])):
            deadline = line.now + chance.choice([0.5, 5.0, math.inf, math.inf])
            priority = chance.choice([0, 0, 0, 1, 3, -2])
            shape = chance.choice([A, A, A, B, C])
            waiting.add(line.add(chance.choice(keys), shape, priority, deadline))
        if waiting and chance.random() < 0.3:
            gone = chance.choice(sorted(waiting, key=order))
            assert line.queue.withdraw(gone)
            waiting.remove(gone)
            if gone.key not in {image.key for image in waiting}:
                passed[gone.key] = 0
            fate[gone] += 1
        if chance.random() < 0.6:
            batch, late = line.taken()
            judge(line, batch, late, waiting, passed)
            for image in [*batch, *late]:
                waiting.remove(image)
                fate[image] += 1
        assert line.queue.waiting == len(waiting)
        assert entries(line.queue) == len(waiting) + line.queue._gone
        assert line.queue._gone <= len(waiting) + 64
    while waiting:
        batch, late = line.taken()
        judge(line, batch, late, waiting, passed)
        for image in [*batch, *late]:
            waiting.remove(image)
            fate[image] += 1
    assert len(fate) == line.number
    assert set(fate.values()) == {1}


def judge(line: Line, batch: list[Image], late: list[Image], waiting: set[Image], passed: dict[str, int]) -> None:
    """passed  of each key: batches led by others since it led, or had its first go along, or was empty."""
    assert set(batch) | set(late) <= set(waiting)
    assert all(image.deadline <= line.now for image in late)
    alive = [image for image in waiting if image.deadline > line.now]
    if not batch:
        assert not alive
        return
    leader = batch[0]
    group = leader.group
    assert {image.group for image in batch} == {group}
    assert all(image.deadline > line.now for image in batch)
    assert leader is first(alive, leader.key)
    left = [image for image in alive if image not in batch]
    assert len(batch) == line.most or group not in {image.group for image in left}
    for key in {image.key for image in alive}:
        own = [image for image in batch if image.key == key]
        assert own == sorted(own, key=order)
        behind = [image for image in left if image.key == key and image.group == group]
        if own and behind:
            assert order(own[-1]) < min(map(order, behind))
        if behind:  # who still has this shape got as much of the batch as anybody, within one
            shares = Counter(image.key for image in batch)
            assert len(own) >= max(shares.values()) - 1
    for key in {image.key for image in alive}:
        if first(alive, key) in batch:
            passed[key] = 0
        else:
            passed[key] += 1
            assert passed[key] < len(passed), "others lead twice before this key led once"
    for key in passed.keys() - {image.key for image in left}:
        passed[key] = 0


def order(image: Image) -> tuple[float, int]:
    return image.rank, image.number


def first(images: Iterable[Image], key: str) -> Image:
    return min((image for image in images if image.key == key), key=order)


def background(line: Line, name: str, group: Hashable = A) -> None:
    line.number += 1
    line.queue.add(Image(BACKGROUND, group, line.now, math.inf, 0, name, line.number))


def test_the_background_leads_one_turn_of_so_many_while_others_wait() -> None:
    line = Line()
    line.queue = FairQueue(every=4)
    for i in range(9):
        line.add(f"a{i}")
        background(line, f"j{i}")
    order = [batch[0] for batch in line.all()]
    assert order[:9] == ["a0", "j0", "a1", "a2", "a3", "j1", "a4", "a5", "a6"]
    assert order[-1] == "j8"


def test_between_two_keys_the_background_takes_no_turn_of_theirs() -> None:
    line = Line()
    line.queue = FairQueue(every=3)
    for i in range(4):
        line.add(f"a{i}")
        line.add(f"b{i}")
        background(line, f"j{i}")
    order = [batch[0] for batch in line.all()]
    assert [name for name in order if name[0] != "j"] == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


def test_who_comes_alone_goes_before_a_background_that_has_just_led() -> None:
    line = Line()
    background(line, "j0")
    background(line, "j1")
    assert line.take() == ["j0"]
    line.add("a0")
    assert line.all() == [["a0"], ["j1"]]


def test_the_background_goes_along_where_nobody_else_does() -> None:
    line = Line(most=3)
    background(line, "j0")
    assert line.take() == ["j0"]
    background(line, "j1")
    background(line, "j2")
    for name in ("a0", "b0", "a1"):
        line.add(name)
    assert line.all() == [["a0", "b0", "a1"], ["j1", "j2"]]
    background(line, "j3")
    line.add("c0")
    assert line.all() == [["c0", "j3"]]
