FAMILIES = {}
ViT = None
