"""Import photos from an archive, a folder or the network into data/raw, all or nothing.

archives.py      list and read the files in zip archives, tar archives and folders
entries.py       the class and the file name of each file, or why it is refused
photo_import.py  validate every photo, write the quarantine list, replace data/raw
download.py      download one large file, resumable and verified
dvc_add.py       track the photos with DVC
"""
