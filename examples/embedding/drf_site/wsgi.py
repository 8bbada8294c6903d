"""Where a WSGI server finds the site.

waitress-serve --port 8000 drf_site.wsgi:application
gunicorn --workers 4 --bind 127.0.0.1:8000 drf_site.wsgi
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "drf_site.settings")
application = get_wsgi_application()
