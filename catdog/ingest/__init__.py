"""Import photos from an archive, a folder or a URL into data/raw, atomically.

fetch.py         the command `catdog fetch`: all of the following steps
archives.py      list and read the files in zip archives, tar archives and folders
entries.py       the class and file name of each file, or why it is refused
photo_import.py  validate every photo, write the quarantine list, replace data/raw
download.py      download one large file, with resume and checksum verification
replaced.py      keep the photos that an import replaces
dvc_add.py       track the photos with DVC
"""
