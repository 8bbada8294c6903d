from django.urls import path

from drf_site.views import Predict

urlpatterns = [path("predict/<str:model>", Predict.as_view())]
