# What CMakeLists.txt asks of a Slicer build, without one: enough to configure and install the tree.
# Slicer's own macros also compile the scripts and make translations; the layout is the same.

set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/empty.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/empty.cmake")
set(Slicer_FOUND TRUE)
