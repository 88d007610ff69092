# docker build -t fsslib . && docker run --rm -p 8888:8888 fsslib
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home student
USER student
WORKDIR /home/student/fsslib
COPY --chown=student . .
RUN make .venv/.installed TORCH=cpu
EXPOSE 8888
CMD [".venv/bin/python", "-m", "fsslib", "lab", "--ip=0.0.0.0", "--no-browser"]
