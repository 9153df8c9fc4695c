"""The project that Channels 4 runs in the benchmarks: no more than it needs."""
import os

SECRET_KEY = 'benchmarks only'
ALLOWED_HOSTS = ['127.0.0.1']
INSTALLED_APPS = []
USE_TZ = True
CHANNEL_LAYERS = {'default': {
    'BACKEND': os.environ['LAYER'],
    'CONFIG': {'hosts': [os.environ['REDIS_URL']]},
}}
if os.environ['LAYER'].endswith('.RedisChannelLayer'):
    # With its own 100 it throws away most of what a group of a thousand in one process is sent.
    CHANNEL_LAYERS['default']['CONFIG']['capacity'] = 10000
