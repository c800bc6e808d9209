"""What can go wrong: one base, few children.

Messages write the names of parameters in backticks, with a value where one is meant, as in `fit_views` or
`head='prototypes'`, so that a command can put the names of its options in their place.
"""


class HelloError(Exception):
    """Every error that a caller or a file can cause; its message is one line: where, what was found, what to do."""


class FormatError(HelloError):
    """The bytes are not a valid `.hello` archive; the message ends with the rule, as in `[H4]`."""


class DigestError(FormatError):
    """The bytes differ from the digest that the archive states for them."""


class UnsupportedError(HelloError):
    """The archive is valid, but this version or this machine cannot read it."""


class OptionError(HelloError, ValueError):
    """An option of a build, a data set or an evaluation has a value that cannot be used, or not beside the others."""


class SourceError(HelloError):
    """The real images, or the teacher for them, cannot be used."""


class LabelError(HelloError):
    """Labels cannot be made here: no base model, another base model, or no values in a worker."""
