import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from ssl_framework import report

CSV = """epoch,knn/accuracy,lr,step,train/loss,val/loss
0.1,,0.1,9,2.0,
0.2,,0.1,19,nan,
0.2,0.5,,19,,
0.3,,0.1,29,1.0,
0.3,,,29,,1.5
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text(CSV)
    return tmp_path


def test_sparse_columns_become_curves(run):
    curves = report.read_metrics(run)
    assert list(curves) == ["knn/accuracy", "lr", "train/loss", "val/loss"]
    assert curves["train/loss"].step.tolist() == [9, 29]  # the NaN is no point
    assert curves["train/loss"].value.tolist() == [2.0, 1.0]
    assert curves["knn/accuracy"].step.tolist() == [19]
    assert report.read_metrics(run / "metrics.csv").keys() == curves.keys()


def test_losses_and_scores_have_a_panel_each(run):
    losses, scores = report.training_curves(run).axes
    assert [line.get_label() for line in losses.lines] == ["train loss", "val loss"]
    assert [line.get_label() for line in scores.lines] == ["knn accuracy"]
    assert scores.lines[0].get_ydata().tolist() == [0.5]


def test_a_run_that_has_not_logged_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        report.read_metrics(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n")
    with pytest.raises(ValueError, match="no numbers yet"):
        report.read_metrics(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,step,lr\n0,1,0.1\n")
    with pytest.raises(ValueError, match="neither a loss nor an accuracy, only lr"):
        report.training_curves(tmp_path)


def test_smoothing_keeps_place_and_level():
    from ssl_framework.report.figures import _smoothed

    line = np.linspace(3, 1, 200)
    assert np.allclose(_smoothed(line), line)
    noisy = line + np.random.default_rng(0).normal(0, 0.1, 200)
    assert np.abs(_smoothed(noisy) - line).mean() < np.abs(noisy - line).mean() / 2


def _clusters():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    return 20 * torch.eye(3)[y] + torch.randn(60, 3, generator=generator), y


def test_the_map_is_the_same_each_time_and_keeps_clusters_together():
    x, y = _clusters()
    first, again = (report.embedding_map(x, y, ("a", "b", "c"), most=45) for _ in range(2))
    points = [collection.get_offsets() for collection in first.axes[0].collections]
    assert sum(map(len, points)) == 45
    assert all(np.array_equal(a, b.get_offsets()) for a, b in zip(points, again.axes[0].collections, strict=True))
    centres = np.array([one.mean(axis=0) for one in points])
    spread = max(np.linalg.norm(one - centre, axis=1).mean() for one, centre in zip(points, centres, strict=True))
    assert min(np.linalg.norm(centres[i] - centres[i - 1]) for i in range(3)) > 2 * spread
    assert [label.get_text() for label in first.legends[0].get_texts()] == ["a", "b", "c"]


def test_the_map_wants_a_label_for_each_point():
    x, y = _clusters()
    with pytest.raises(ValueError, match="60 points, 59 labels"):
        report.embedding_map(x, y[1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_shown_as_the_pixels_that_they_were(channels):
    images = torch.randint(0, 256, (3, channels, 4, 4), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.4)[:channels]
    normal = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    picture = report.views_grid(images, torch.stack([normal, normal.flip(-1)]), mean, std, most=2)
    shown = np.array([axes.images[0].get_array() for axes in picture.axes]).reshape(3, 2, 4, 4, -1)
    expected = (images[:2] / 255).permute(0, 2, 3, 1).numpy()
    assert np.allclose(shown[0], expected)
    assert np.allclose(shown[1], expected, atol=1e-6)
    assert np.allclose(shown[2], expected[:, :, ::-1], atol=1e-6)
    with pytest.raises(ValueError, match="B = 3"):
        report.views_grid(images, normal, mean, std)


def test_label_efficiency_draws_means_and_intervals():
    rows = [
        {"method": method, "budget": budget, "seed": seed, "accuracy": base + 0.02 * seed}
        for method, base in (("frozen", 0.7), ("scratch", 0.4))
        for budget in (1, 10)
        for seed in range(3)
    ]
    axes = report.label_efficiency(rows).axes[0]
    assert [container.get_label() for container in axes.containers] == ["frozen", "scratch"]
    line, _, (bars,) = axes.containers[0].lines
    assert line.get_ydata() == pytest.approx([72, 72])
    half = report.summarise(rows).cells["frozen", 1].half_width
    assert bars.get_segments()[0][:, 1] == pytest.approx([72 - 100 * half, 72 + 100 * half])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1 label/class", "10 labels/class"]


def test_a_depth_curve_shows_what_was_kept_and_why():
    mean, error = torch.tensor([0.5, 0.9, 0.85]), torch.tensor([0.01, 0.02, 0.03])
    axes = report.depth_curve(mean, error, bar=0.88, chosen=1).axes[0]
    line, _, (bars,) = axes.containers[0].lines
    assert line.get_ydata() == pytest.approx([50, 90, 85])
    assert bars.get_segments()[2][:, 1] == pytest.approx([82, 88])
    dashed, ring = axes.get_lines()[-2:]
    assert dashed.get_ydata()[0] == pytest.approx(88)
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, pytest.approx(90))


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    picture = report.label_efficiency([{"method": "a", "budget": 1, "seed": 0, "accuracy": 0.5}])
    path = report.save(picture, tmp_path / "pictures" / "a.png")
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def torn(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        report.save(picture, path)
    assert path.read_bytes() == before


def test_pictures_belong_to_no_window_and_change_no_setting():
    before = dict(matplotlib.rcParams)
    report.label_efficiency([{"method": "a", "budget": 1, "seed": 0, "accuracy": 0.5}]).canvas.draw()
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
