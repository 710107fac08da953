# One image for the api, the workers and the migration; the command chooses. See compose.yaml.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY qlaud_actors qlaud_actors
COPY api api
COPY workers workers
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --create-home --uid 10001 qlaud
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 QLAUD_DATA_DIR=/home/qlaud/data
USER qlaud
WORKDIR /home/qlaud
EXPOSE 8787
# `qlaud api` becomes the server's own process, which therefore gets Docker's SIGTERM.
CMD ["qlaud", "api"]
