"""Where a detector's answers hold boxes (records/box_layout.py), and what their numbers say:

find_heads       the finder: recorded, chosen by the graph, or of anchors, by the graph, shapes and numbers
find_detections  boxes that the graph chose, behind a suppression
find_tables      boxes beside scores in one output
find_pairs       boxes in one output, scores in another
find_maps        heads that are not decoded, as the maps that a network ends in
grids            where anchors lie in a picture
decode           numbers of anchors as corners
read             the boxes of answers, the best of those that overlap
compare          how many boxes two models have in common, and how near these are
served           which boxes a server can tell, or why not
"""
