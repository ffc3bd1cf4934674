"""Photos come in: from an archive, a folder or the network into data/raw, all or nothing.

archives.py      zip, tar and folders: the files in them, and the class of each
photo_import.py  check every photo, put the valid ones in place, list the others
download.py      one large file, resumed and checked
dvc_add.py       hand the photos to DVC
"""
