"""notes(): what a reader has to know beside the numbers."""

from hellods.display.text import Json


def notes(archive: Json, report: Json) -> list[str]:
    """Return the sentences that hold for an archive of a report."""
    said = []
    if not archive["same_data"]:
        said.append(
            "The archive was not made from this data: this measures how it transfers. Whether it was made from images "
            "that are held out here, nobody can tell."
        )
    if archive["same_teacher"] is False:
        said.append("The archive was not made with this teacher: the gap between them is also one of teachers.")
    if archive["assistant"]:
        said.append("The archive's labels are those of an assistant, which learned from classes and teacher.")
    if len(report["seeds"]) == 1:
        said.append("One seed: how much the numbers vary from seed to seed is unknown.")
    return said
