"""What a reader needs to do it again and to doubt it: commands, the environment, the terms, the limits."""

from ssl_framework.report.page import answer, parts
from ssl_framework.report.page.markup import Content, tag
from ssl_framework.report.page.parts import Section
from ssl_framework.report.page.study import Study

GLOSSARY = (
    ("Label", "The right answer that a person attached to an image, such as “cat”. Labels cost work; images alone are cheap."),
    (
        "Pretraining",
        "Learning from images without labels by solving a puzzle made of them, such as: are these two crops of one image?",
    ),
    ("From scratch", "The same network without pretraining. It is what pretraining has to beat."),
    ("Transfer", "Using what was learned in one place, here pretraining, for another task."),
    ("Accuracy, points", "The share of new images that get the right answer. From 70 % to 73 % is a gain of 3 points."),
    (
        "Seed",
        "Fixes all chance in a run: which labels are drawn, how the network starts. Several seeds show what is luck.",
    ),
    ("95 % interval", "Where the true mean probably lies. A method that computes such intervals is right 95 times in 100."),
    (
        "p of the verdict",
        "How often chance alone would look like this, where pretraining has to beat scratch and everything simpler that was "
        "measured; made stricter (Holm) because several gains are tested. Below 0.05 it counts.",
    ),
    (
        "No evidence",
        "The gain may be chance, or something simpler, without pretraining, may do as well or better. It does not say "
        "that there is none: more seeds could show it.",
    ),
    ("Validation, test", "Choices are made on validation images; the verdict is made on test images that no choice has seen."),
    (
        "Frozen, fine-tuned",
        "Frozen: the pretrained network stays as it is, and a simple classifier learns from what it says. Fine-tuned: all of "
        "it goes on learning. Between them: only its last layer goes on learning; in two steps, first the classifier "
        "learns beside the frozen network, then everything goes on; or small corrections of it are learnt (LoRA).",
    ),
    (
        "Simple ways",
        "What needs no pretraining and hardly any training: a simple classifier on raw pixels, on their principal components, "
        "or on what a network with random weights says.",
    ),
    (
        "Embedding",
        "The list of numbers by which the network describes an image. Images that it finds alike get similar numbers.",
    ),
)


def environment(study: Study) -> Section | None:
    """Commands that do it again, where it ran, and every run."""
    found, commands = study.get("environment", {}), study.get("commands", [])
    if not found and not commands:
        return None
    content: list[Content] = []
    if commands:
        content += [tag("h3", "Commands"), *map(parts.copyable, commands)]
    if found:
        content += [tag("h3", "Environment")]
        content.append(
            tag("dl", *(tag("div", tag("dt", key), tag("dd", str(value))) for key, value in found.items()), class_="facts")
        )
    content.append(answer.runs([*study["rows"], *study.get("more_rows", [])]))
    return Section("again", "Do it again", content)


def glossary() -> Section:
    """How to read the page."""
    terms = [tag("div", tag("dt", term), tag("dd", meaning)) for term, meaning in GLOSSARY]
    return Section("glossary", "How to read this page", [tag("dl", *terms, class_="glossary")])


def limits(study: Study) -> Section | None:
    """What the study cannot say."""
    found = study.get("limits", [])
    return Section("limits", "What this does not tell you", [parts.bullets(found)]) if found else None
