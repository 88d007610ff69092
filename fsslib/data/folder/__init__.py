"""A folder of somebody's own pictures: its layout is recognised, its files are checked, every problem has a cure.

Messages and cures may be improved freely; what `check_folder` accepts, `Folder` must load.
"""

from ...names import on_demand

LAYOUTS = ("class_folders", "images_masks", "coco_json", "yolo", "labelme")

__getattr__, __dir__, __all__ = on_demand(__name__, {"check": "check_folder", "dataset": "Folder"})
