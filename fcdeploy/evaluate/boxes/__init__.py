"""Which outputs of a detector are boxes, and what their numbers say:

detections   boxes that the graph chose, behind a suppression
heads        boxes and scores that every anchor has
grids        where anchors lie in a picture
find_heads   heads in the answers to pictures: by the graph, shapes and numbers
find_maps    heads that are not decoded, as the maps that a network ends in
layouts      where answers hold boxes, to be recorded in a bundle
"""
