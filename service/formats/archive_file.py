"""Several files as one: a zip.

Knows nothing of what is in them.
"""

import io
import zipfile
from collections.abc import Mapping

_PACKED = (".png", ".jpg", ".webp", ".zip")  # what does not become smaller
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of an archive: the same files make the same one


def archive(files: Mapping[str, bytes]) -> bytes:
    """The files of these names in an archive, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as into:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_STORED if name.endswith(_PACKED) else zipfile.ZIP_DEFLATED
            into.writestr(info, data, compresslevel=1)
    return buffer.getvalue()
