"""Training faces: sources, samples that follow from their number, landmarks, alignment."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from gfprestore.align import FACE_TEMPLATE
from gfprestore.errors import UsageError
from gfprestore.folders import plan_jobs
from gfprestore.photo import DetectedFace
from gfprestore.training.aligning import align_photos, find_landmarks
from gfprestore.training.dataset import (
    DegradedFaces,
    StepSampler,
    UnreadableFace,
    image_tensor,
    join_batches,
    join_samples,
    make_loader,
    open_batches,
)
from gfprestore.training.degradation_presets import ARTICLE, OLDPRINT
from gfprestore.training.face_components import find_components, tell_missing
from gfprestore.training.regions import (
    PARTS,
    component_boxes,
    components_from_landmarks,
    flip_components,
    read_components,
    template_components,
    write_components,
)
from gfprestore.training.sources import open_faces

pytestmark = pytest.mark.usefixtures("one_thread")


SIDE = 32


@pytest.fixture
def folder(tmp_path):
    faces = tmp_path / "faces"
    (faces / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "more/d.png"):
        cv2.imwrite(str(faces / name), generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    (faces / "notes.txt").write_text("no face")
    return faces


def samples(folder, **changes):
    faces, _ = open_faces([str(folder)])
    settings = {"size": SIDE, "seed": 3} | changes
    return DegradedFaces(faces, OLDPRINT, **settings)


def test_shards_and_folders_give_the_same_faces(folder, tmp_path):
    shard = tmp_path / "faces.tar"
    with tarfile.open(shard, "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_file():
                archive.add(path, path.relative_to(folder))
    plain, packed = (open_faces([str(source)])[0] for source in (folder, shard))
    assert [plain.name(i) for i in range(4)] == [packed.name(i) for i in range(4)] == ["a", "b", "c", "more/d"]
    for index in range(4):
        np.testing.assert_array_equal(plain.read(index, SIDE), packed.read(index, SIDE))
    assert plain.read(0, 16).shape == (16, 16, 3)


def test_a_shard_of_a_whole_folder_has_the_folders_names(folder, tmp_path):
    (folder / "._a.png").write_bytes(b"what macOS keeps beside a file")
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        archive.add(folder, ".")
    with tarfile.open(tmp_path / "faces.tar") as archive:
        assert {"./a.png", "./._a.png"} <= set(archive.getnames())
    packed, _ = open_faces([str(tmp_path / "faces.tar")])
    assert [packed.name(index) for index in range(len(packed))] == ["a", "b", "c", "more/d"]


def test_a_face_that_is_no_square_is_refused(folder):
    cv2.imwrite(str(folder / "a.png"), np.zeros((64, 128, 3), np.uint8))
    with pytest.raises(UsageError, match=r"a\.png has 128 x 64 pixels.*square"):
        open_faces([str(folder)])[0].read(0, SIDE)


def test_components_lie_beside_their_faces(folder, tmp_path, caplog):
    faces, _ = open_faces([str(folder), str(folder / "more")])
    here, there, given = (template_components() + shift for shift in (1, 2, 3))
    assert find_components(faces, None) == (None,) * 5
    write_components(folder / "components.json", {"a": here, "b": here})
    write_components(folder / "more" / "components.json", {"d": there})
    faces, _ = open_faces([str(folder), str(folder / "more")])
    beside = find_components(faces, None)
    assert [entry is None for entry in beside] == [False, False, True, True, False]
    np.testing.assert_allclose(np.stack([beside[0], beside[1], beside[4]]), [here, here, there], atol=1e-3)
    write_components(tmp_path / "given.json", {"b": given})
    found = find_components(faces, tmp_path / "given.json")
    np.testing.assert_allclose(found[0], here, atol=1e-3)
    np.testing.assert_allclose(found[1], given, atol=1e-3)
    tell_missing(found)
    assert "2 of 5 faces have no components" in caplog.text
    caplog.clear()
    tell_missing(found[:2])
    assert not caplog.text


def test_components_of_other_faces_are_refused(folder, tmp_path):
    faces, _ = open_faces([str(folder)])
    for names in (["00000000"], []):
        write_components(tmp_path / "c.json", {name: template_components() for name in names})
        with pytest.raises(UsageError, match=r"data\.components .* none of the 4 faces.*like a\."):
            find_components(faces, tmp_path / "c.json")


def test_lmdb_gives_the_same_faces(folder, tmp_path):
    lmdb = pytest.importorskip("lmdb")
    place = tmp_path / "faces.lmdb"
    with lmdb.open(str(place), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for name in ("a", "b", "c"):
            transaction.put(name.encode(), (folder / f"{name}.png").read_bytes())
    (place / "meta_info.txt").write_text("".join(f"{name}.png (32,32,3) 1\n" for name in "abc"))
    plain, packed = (open_faces([str(source)])[0] for source in (folder, place))
    assert [packed.name(i) for i in range(3)] == ["a", "b", "c"]
    np.testing.assert_array_equal(plain.read(2, SIDE), pickle.loads(pickle.dumps(packed)).read(2, SIDE))


def test_held_out_faces_are_the_last_of_each_source(folder):
    kept, apart = open_faces([str(folder), str(folder / "more" / "..")], held_out=1)
    assert [kept.name(i) for i in range(len(kept))] == ["a", "b", "c"] * 2
    assert [apart.name(i) for i in range(len(apart))] == ["more/d"] * 2


def test_sources_that_cannot_serve_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match=r"data\.sources"):
        open_faces([])
    with pytest.raises(UsageError, match=r"4 faces and data\.held_out keeps 4 .*data\.held_out=1\."):
        open_faces([str(folder)], held_out=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no faces: see data\.sources"):
        open_faces([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="no folder"):
        open_faces([str(tmp_path / "none")])
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"a\.png is no readable image"):
        open_faces([str(folder)])[0].read(0, SIDE)
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"x" * 600)
    with pytest.raises(UsageError, match="tar"):
        open_faces([str(bad)])


def test_a_sample_follows_from_its_number(folder):
    first, second = samples(folder)[11], samples(folder)[11]
    for name in ("degraded", "truth", "boxes", "numbers"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)
    assert first.degraded.shape == (1, 3, SIDE, SIDE) and first.degraded.abs().max() <= 1
    other = samples(folder, seed=4)[11]
    assert not torch.equal(first.degraded, other.degraded)


def test_a_round_shows_every_face_once(folder):
    faces = samples(folder, flip=False)
    plain = DegradedFaces(open_faces([str(folder)])[0], ARTICLE, size=SIDE, seed=3, flip=False)
    rounds = [[plain[n].truth.sum().item() for n in range(start, start + 4)] for start in (0, 4, 8)]
    assert all(len(set(values)) == 4 and set(values) == set(rounds[0]) for values in rounds)
    assert len(faces[0]) == 1


def test_the_mirrored_half_has_mirrored_boxes(folder):
    components = [template_components()] * 3 + [None]
    faces = open_faces([str(folder)])[0]
    dataset = DegradedFaces(faces, ARTICLE, size=512, seed=0, components=components)
    plain = component_boxes(template_components())
    mirrored = component_boxes(flip_components(template_components(), 512))
    kinds = set()
    originals = [image_tensor(faces.read(i, 512)) for i in range(4)]
    for number in range(5):
        sample = dataset[number]
        is_plain = any(torch.equal(sample.truth[0], face) for face in originals)
        assert is_plain or any(torch.equal(sample.truth[0].flip(-1), face) for face in originals)
        np.testing.assert_allclose(sample.boxes[0].numpy(), plain if is_plain else mirrored, atol=1e-3)
        kinds.add(is_plain)
    assert kinds == {True, False}


def test_two_processes_share_the_batch_of_one():
    whole = list(StepSampler(5, 8, 8))
    parts = [list(StepSampler(5, 8, 8, rank, 2)) for rank in (0, 1)]
    assert whole[0] == list(range(40, 48))
    for step, numbers in enumerate(whole):
        assert [numbers[::2], numbers[1::2]] == [part[step] for part in parts]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one processor
def test_workers_change_nothing(folder):
    batches = [
        list(make_loader(samples(folder), StepSampler(1, 3, 2), workers, pin_memory=False)) for workers in (0, 2)
    ]
    for alone, helped in zip(*batches, strict=True):
        assert torch.equal(alone.degraded, helped.degraded) and torch.equal(alone.numbers, helped.numbers)


def test_an_unreadable_face_is_a_value_that_names_its_file(folder, tmp_path):
    shard = tmp_path / "faces.tar"
    (folder / "b.png").write_bytes(b"no image")
    with tarfile.open(shard, "w") as archive:
        for name in ("a", "b"):
            archive.add(folder / f"{name}.png", f"{name}.png")
    with_gone = samples(folder)
    (folder / "b.png").unlink()
    for dataset, count, told in ((samples(shard), 2, f"{shard}: b.png"), (with_gone, 4, str(folder / "b.png"))):
        found = [dataset[number] for number in range(count)]
        (failure,) = [sample for sample in found if isinstance(sample, UnreadableFace)]
        assert failure.message.startswith(told)
        assert join_samples(found) is failure


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one processor
def test_workers_end_with_the_block_even_while_an_exception_is_held(folder):
    held = None
    try:
        with open_batches(samples(folder), StepSampler(0, 9, 2), 1, pin_memory=False) as batches:
            next(batches)
            (worker,) = batches._workers
            raise RuntimeError
    except RuntimeError as error:
        held = error
    is_left = worker.is_alive()
    worker.kill()  # It would hold up the end of the tests.
    assert held is not None and not is_left


def test_splits_join_again(folder):
    batch = join_batches([samples(folder)[n] for n in range(4)])
    parts = batch.split(2)
    assert [part.numbers.tolist() for part in parts] == [[0, 2], [1, 3]]
    assert torch.equal(join_batches(parts).degraded, batch.degraded[[0, 2, 1, 3]])


def test_components_go_through_both_kinds_of_file(tmp_path):
    components = components_from_landmarks(FACE_TEMPLATE + 1.5)
    write_components(tmp_path / "c.json", {"x": components})
    np.testing.assert_allclose(read_components(tmp_path / "c.json")["x"], components, atol=1e-3)
    # The published file pickles numpy arrays and plain lists.
    parts = ("left_eye", "right_eye", "mouth")
    torch.save({"00000000": dict(zip(parts, components, strict=True))}, tmp_path / "c.pth")
    np.testing.assert_array_equal(read_components(tmp_path / "c.pth")["00000000"], components)
    torch.save({"00000000": dict(zip(parts, components.tolist(), strict=True))}, tmp_path / "d.pth")
    np.testing.assert_allclose(read_components(tmp_path / "d.pth")["00000000"], components)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_the_published_files_numbers_are_numpys(tmp_path, module):
    """The official script stores lists of float64 scalars, pickled by the numpy of its day."""
    rows = template_components().astype(np.float64)
    entry = {part: [np.float64(value) for value in row] for part, row in zip(PARTS, rows, strict=True)}
    torch.save({"00000000": entry}, tmp_path / "new.pth")
    ours = np.float64(0).__reduce__()[0].__module__.encode()
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "c.pth", "w") as file:
        for name in new.namelist():
            file.writestr(name, new.read(name).replace(b"c" + ours + b"\n", b"c" + module + b"\n"))
    np.testing.assert_allclose(read_components(tmp_path / "c.pth")["00000000"], rows, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps({"00000000": print}, protocol=2)])
def test_damaged_and_dangerous_files_of_landmarks_are_refused(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.components"):
        read_components(tmp_path / "c.pth")


@pytest.mark.parametrize("content", ["", "[]", '{"x": {"left_eye": [1, 2, 3]}}', '{"x": 3}'])
def test_other_files_are_no_components(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UsageError, match=r"components: see data\.components"):
        read_components(tmp_path / "c.json")
    with pytest.raises(UsageError, match="missing"):
        read_components(tmp_path / "none.json")


def test_components_lie_about_the_landmarks():
    components = template_components()
    np.testing.assert_allclose(components[:2, :2], FACE_TEMPLATE[:2], atol=1e-3)
    np.testing.assert_allclose(components[2, :2], FACE_TEMPLATE[3:].mean(axis=0), atol=1e-3)
    left, top, right, bottom = component_boxes(components)[2]
    assert left < FACE_TEMPLATE[3, 0] < FACE_TEMPLATE[4, 0] < right and top < FACE_TEMPLATE[3, 1] < bottom


class TemplateDetector:
    """Finds one face: the mean one, times a scale."""

    def __init__(self, scale: float) -> None:
        self._landmarks = (FACE_TEMPLATE + 0.5) * scale - 0.5

    def detect(self, photos):
        face = DetectedFace(box=np.zeros(4), landmarks=self._landmarks, score=1.0)
        return [[face] for _ in photos]


def test_aligned_photos_are_the_crops_and_their_components(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    cv2.imwrite(str(photos / "x.png"), pixels)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    lines = []
    jobs = plan_jobs([photos], output, format="png")
    report = align_photos(jobs, output, TemplateDetector(1.0), size=512, enlarge=1.0001, notify=lines.append)
    assert (report.faces, report.failed, len(lines)) == (1, 1, 1)
    np.testing.assert_array_equal(cv2.imread(str(output / "x_0.png")), pixels)
    np.testing.assert_allclose(read_components(output / "components.json")["x_0"], template_components(), atol=1e-2)
    small = align_photos(
        plan_jobs([photos], tmp_path / "small", format="png"),
        tmp_path / "small",
        TemplateDetector(0.5),
        size=512,
        enlarge=1.0,
        notify=lines.append,
    )
    assert (small.faces, small.small) == (0, 1)


def test_a_face_that_cannot_be_written_costs_its_photo_alone(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    for name in ("a", 251 * "b", "c"):
        cv2.imwrite(str(photos / f"{name}.png"), pixels)
    lines = []
    jobs = plan_jobs([photos], output, format="png")
    report = align_photos(jobs, output, TemplateDetector(1.0), size=512, enlarge=1.0001, notify=lines.append)
    assert (report.faces, report.failed, len(lines)) == (2, 1, 1) and "too long" in lines[0]
    assert sorted(read_components(output / "components.json")) == ["a_0", "c_0"]


def test_what_was_found_before_the_run_ended_is_kept(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in "ab":
        cv2.imwrite(str(photos / f"{name}.png"), np.zeros((512, 512, 3), np.uint8))
    detector, seen = TemplateDetector(1.0), []

    def detect(images):
        seen.extend(images)
        if len(seen) > 1:
            raise KeyboardInterrupt
        return detector.detect(images)

    jobs = plan_jobs([photos], output, format="png")
    with pytest.raises(KeyboardInterrupt):
        align_photos(jobs, output, SimpleNamespace(detect=detect), size=512, enlarge=1.0001, notify=print)
    assert list(read_components(output / "components.json")) == ["a_0"]


def test_photos_that_are_called_alike_lose_no_face(tmp_path):
    photos = {}
    for number, name in enumerate(("a/x.png", "b/x.png", "b/x.bmp", "c/x.png")):
        photos[name] = np.random.default_rng(number).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), photos[name])

    def align(output, *folders):
        jobs = plan_jobs([tmp_path / name for name in folders], output, format="png", shares_targets=True)
        detector = TemplateDetector(1.0)
        report = align_photos(jobs, output, detector, size=512, enlarge=1.0001, notify=print)
        return report.faces, report.known

    def faces(output):
        return {path.stem: cv2.imread(str(path)) for path in output.glob("*.png")}

    one, several = tmp_path / "one", tmp_path / "several"
    assert align(one, "a", "b", "c") == (4, 0)
    assert [align(several, name) for name in "abc"] == [(1, 0), (2, 0), (1, 0)]
    assert align(one, "b", "a", "c") == align(several, "c", "b", "a") == (0, 4)
    assert sorted(faces(one)) == sorted(faces(several)) == sorted(read_components(one / "components.json"))
    np.testing.assert_array_equal(faces(one)["x_0"], photos["a/x.png"])
    for name, pixels in photos.items():
        assert sum(np.array_equal(face, pixels) for face in faces(one).values()) == 1, name
    (tmp_path / "b").rename(tmp_path / "moved")
    assert align(one, "moved") == (0, 2), "a photo is known by what it holds"
    (one / "photos.json").write_text("[")
    with pytest.raises(UsageError, match="--output"):
        align(one, "a")


def test_landmarks_of_aligned_faces_are_cached(folder, tmp_path):
    output = tmp_path / "landmarks"
    jobs = plan_jobs([folder], output, format="png")
    report = find_landmarks(jobs, output, TemplateDetector(1.0), notify=print)
    again = find_landmarks(jobs, output, TemplateDetector(2.0), notify=print)
    assert (report.faces, again.faces) == (4, 0)
    np.testing.assert_allclose(read_components(output / "components.json")["more/d"], template_components(), atol=1e-2)
