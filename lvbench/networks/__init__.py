"""The networks of the published extractor, as plain torch modules under the names of their public weights.

Each was written from its paper and the names and shapes in its public file: the packages that have them pull in dozens
of others (pyiqa), name the parameters otherwise (RAFT in torchvision) or stretch position embeddings otherwise (DINO in
timm). Of lvbench only this folder imports torch.
"""
