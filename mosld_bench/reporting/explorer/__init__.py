"""The explorer: one page a study that shows its rows, records and items; opened in a browser before the PDF.

`data.py` makes an object of an `Analysis`, `page.py` a page of it; the page's own code is in `assets/`, built from
`web/`. `README.md` describes the object.
"""

#: The file of a page, of a study's and of that over all studies.
PAGE = "index.html"
