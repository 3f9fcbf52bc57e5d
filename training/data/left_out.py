"""What the files are that were left out of a folder, in words: by their suffixes, and what would let them take part.

Knows nothing of folders.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from models.extras import pip
from models.io import kinds

_VIDEOS = ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv"
_ARCHIVES = ".7z .bz2 .gz .lzma .rar .tar .tgz .txz .xz .zip .zst"
_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dng .erf .fff .iiq .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw"
    " .x3f"
)
_PICTURES = (
    ".bpg .cin .cur .czi .dds .djvu .dpx .emf .eps .exr .fit .fits .h5 .hdr .icns .ico .img .jxr .mat .mng .mrc .nc"
    " .nd2 .nii .npy .npz .nrrd .pam .pbm .pcx .pdf .pfm .pgm .ppm .psd .qoi .ras .sgi .svg .svs .tga .vsi .wmf .xbm"
    " .xcf .xpm"
)
_UNREAD = ("picture of a format that is not read", "pictures of formats that are not read")
_KINDS = (  # what one is, what several are, and what to do; the first that holds a suffix
    (frozenset(_VIDEOS.split()), "video", "videos", "save frames of them as JPEG or PNG"),
    (frozenset(_ARCHIVES.split()), "archive", "archives", "unpack them"),
    (frozenset(_RAW.split()), "camera raw file", "camera raw files", "develop them to JPEG, PNG or TIFF"),
    (frozenset(_PICTURES.split()), *_UNREAD, "convert them to PNG or TIFF"),
)
_MOST_SUFFIXES = 6  # that a sentence names


def sentences(counts: Mapping[str, int]) -> list[str]:
    """A sentence for each kind of file.

    counts  files by suffix in small letters, "" without one
    """
    left, said = Counter(counts), []
    for reader, ends in kinds.SUFFIXES_OF.items():
        if extra := kinds.missing(reader):
            hint = f"install the extra `{extra}`, {pip(extra)}"
            name = reader.upper()
            said += _sentence(f"{name} picture", f"{name} pictures", _taken(left, ends), hint)
    for suffixes, one, several, hint in _KINDS:
        said += _sentence(one, several, _taken(left, suffixes), hint)
    return said + _sentence("file that is no picture by its name", "files that are no pictures by their names", left)


def _taken(left: Counter[str], suffixes: Iterable[str]) -> Counter[str]:
    return Counter({suffix: left.pop(suffix) for suffix in suffixes if suffix in left})


def _sentence(one: str, several: str, counts: Counter[str], hint: str = "") -> list[str]:
    if not counts:
        return []
    shown = [f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.most_common(_MOST_SUFFIXES)]
    rest = counts.total() - sum(count for _, count in counts.most_common(_MOST_SUFFIXES))
    more = [f"{rest} of others"] if rest else []
    what = one if counts.total() == 1 else several
    return [f"left out: {counts.total()} {what} ({', '.join(shown + more)}){f': {hint}' if hint else ''}"]
