"""Import photos from an archive, a folder or a URL into data/raw, atomically.

fetch.py          the command `catdog fetch`: all of the following steps
sources.py        open a zip archive, a tar archive or a folder
members.py        what a source consists of: its files or entries, and their limits
zip_source.py     the members of a zip archive
tar_source.py     the members of a tar archive
folder_source.py  the members of a folder
stores.py         refuse folders that store files by their hash, such as caches
name_encoding.py  the encoding of file names in archives that do not state it
entries.py        the class and the path in data/raw of each member, or why it is refused
checking.py       validate the photos in worker processes, write the valid ones
photo_import.py   the import: check all members, write the quarantine list, replace data/raw
replacement.py    replace data/raw as a whole, recover from a killed import
report.py         the numbers of an import, as a table
download.py       download one large file, with resume and checksum verification
replaced.py       keep the photos that an import replaces
dvc_add.py        track the photos with DVC
"""
