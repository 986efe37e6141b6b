"""OpenAI's own client against the server: plain, streaming, errors, models.

    pip install openai==3.51.0
    alitok serve &
    python crates/server/tests/clients/openai_client.py http://127.0.0.1:8080 [KEY]
"""

import base64
import struct
import sys

import openai

url, key = sys.argv[1], (sys.argv[2:] or ["unused"])[0]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def size(png):
    assert png.startswith(b"\x89PNG"), png[:8]
    return struct.unpack(">II", png[16:24])


model = client.models.list().data[0]
assert client.models.retrieve(model.id).id == model.id
expected = (model.width, model.height)
prompt = model.classes[0]

# Plain.
answer = client.images.generate(model=model.id, prompt=prompt, n=2, size="auto", extra_body={"seed": 7})
pictures = [base64.b64decode(picture.b64_json) for picture in answer.data]
assert len(pictures) == 2 and all(size(picture) == expected for picture in pictures)
assert answer.created and answer.output_format == "png" and answer.usage.output_tokens == 2 * model.tokens
assert answer.seed == 7

# The same seed, by class and as a stream with pictures on the way.
events = list(
    client.images.generate(
        model=model.id, prompt="", stream=True, partial_images=2, extra_body={"class": 0, "seed": 7, "index": 1}
    )
)
kinds = [event.type for event in events]
assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
assert [event.partial_image_index for event in events[:2]] == [0, 1]
assert base64.b64decode(events[-1].b64_json) == pictures[1], "the same request gives the same picture"
assert events[-1].usage.total_tokens > 0

# Other encodings.
for name, start in (("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
    answer = client.images.generate(prompt=prompt, output_format=name, output_compression=80)
    assert base64.b64decode(answer.data[0].b64_json).startswith(start)

# Errors are the client's own.
for arguments, error, param in (
    ({"prompt": prompt, "n": 11}, openai.BadRequestError, "n"),
    ({"prompt": "a class that is not there"}, openai.BadRequestError, "prompt"),
    ({"prompt": prompt, "size": "1024x1024"}, openai.BadRequestError, "size"),
    ({"prompt": prompt, "response_format": "url"}, openai.BadRequestError, "response_format"),
    ({"prompt": prompt, "model": "none"}, openai.NotFoundError, "model"),
    ({"prompt": prompt, "extra_body": {"tokens": [10**6]}}, openai.UnprocessableEntityError, "tokens"),
):
    try:
        client.images.generate(**arguments)
    except error as refused:
        assert refused.param == param, refused.param
    else:
        raise AssertionError(f"{arguments} was taken")
print(f"openai {openai.__version__}: plain, streaming, encodings, errors and models work")
