"""The bytes that have to be sent for an arm: of images, and of all else beside images and labels."""

from dataclasses import replace
from typing import Final

from hellods.evaluate.arms import Arm
from hellods.evaluate.subject import Subject
from hellods.format import wire
from hellods.format.header import Header, emit
from hellods.format.sections import padding

LABELLING: Final = ("projector", "probe", "backbone")  # sections that only a label maker needs


def image_bytes(subject: Subject) -> tuple[int, int]:
    """Return the bytes of the archive's images, and of their index."""
    lengths = {section.name: section.length for section in subject.header.sections}
    return lengths["images"], lengths["images.index"]


def rest_bytes(subject: Subject, arm: Arm) -> int:
    """Return the bytes that an arm takes beside its images and its labels.

    All real images need nothing else. The archive's labels need all the rest of its file; other labels what the file
    would have without its label maker: neither its probe nor its description in the header.
    """
    if arm.images == "all":
        return 0
    header, labels = subject.header, subject.label_bytes
    if arm.labels != "hello":
        sections = tuple(section for section in header.sections if section.name not in LABELLING)
        header, labels = replace(header, projector=None, sections=sections), 0
    return file_bytes(header) - sum(image_bytes(subject)) - labels


def file_bytes(header: Header) -> int:
    """Return the bytes of a file with this header."""
    sections = sum(section.length + len(padding(section.length)) for section in header.sections)
    return wire.ALIGNMENT + len(emit(header)) + sections
