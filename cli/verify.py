"""`hellods verify`: every promise of an archive, checked."""

import click

from hellods.format.archive import Archive

from .progress import progress
from .text import escape


@click.command()
@click.argument("file")
@click.option("--base", help="The base model, where FILE names one that only you have: local-dir:FOLDER or hf-hub:…")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(file: str, base: str | None, quiet: bool) -> None:
    """Check all that FILE holds.

    Every digest is compared, every image decoded, and the probe labels are made again and compared.
    """
    with progress(quiet) as draw, Archive.open(file) as archive:
        archive.verify(draw)
        header = archive.header
        names = {section.name for section in header.sections}
        probed, embedded = "probe" in names, "backbone" in names
        # torch costs seconds to import, and an archive that is broken is refused before.
        from hellods.data.dataset import HelloDataset

        if header.projector is None:
            HelloDataset(file, labels="hard")  # which reads what the rest of the header says
        else:
            draw("Labels", 0, 1)
            for used in dict.fromkeys([None, base] if embedded else [base]):
                HelloDataset(file, base=used).batch([0])  # the first label compares the probe
            draw("Labels", 1, 1)
    if header.projector is None:
        labels = "no projector, so no labels to check"
    elif probed:
        labels = "labels made again, equal to the probe"
    else:
        labels = "labels can be made; the file has no probe to compare them with"
    click.echo(f"{escape(file)}: {len(header.sections)} sections equal their digests")
    click.echo(f"{header.images.count:,} images decoded, each {header.images.height} × {header.images.width} px")
    if embedded:
        click.echo("the base model is in the file, and its tensors equal their SHA-256")
    click.echo(labels)
